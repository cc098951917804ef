//! The page in a real Chromium: wide and narrow, light and dark, what is drawn and what can be used.

use std::fs;

use aop::lab::report::html;
use serde_json::json;
use tempfile::TempDir;

use super::driver::{Browser, SIZES};
use super::sample::results;

/// The page as a file, opened without any network.
fn opened(browser: &Browser, folder: &TempDir, fragment: &str) {
    let file = folder.path().join("report.html");
    fs::write(&file, html(&results())).unwrap();
    browser.go(&format!("file://{}{fragment}", file.display()));
    browser.until("document.querySelector('.uplot') !== null");
}

/// Everything drawn, whether near the window or not.
fn drawn(browser: &Browser) {
    browser.value("dispatchEvent(new Event('beforeprint'))");
    browser.until(
        "document.querySelectorAll('.drawn').length === 6 && document.querySelector('.heat td') !== null",
    );
}

/// How many colours a canvas shows.
fn colours(canvas: &str) -> String {
    format!(
        "(() => {{ const it = document.querySelector('{canvas}');
          const all = it.getContext('2d').getImageData(0, 0, it.width, it.height).data;
          return new Set(new Uint32Array(all.buffer)).size; }})()"
    )
}

#[test]
fn the_report_opens_offline_wide_and_narrow_light_and_dark() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    for size in SIZES {
        for (scheme, ground) in [("light", "rgb(246, 246, 243)"), ("dark", "rgb(15, 17, 19)")] {
            browser.dress(size, scheme);
            opened(&browser, &folder, "");
            assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), ground);
            drawn(&browser);
            browser.picture(&format!("report-{}-{scheme}", size.0));
            assert_eq!(
                browser.value("document.querySelectorAll('.uplot').length"),
                8,
                "curves of five, three sweeps"
            );
            for canvas in
                ["#s-wan-spread .uplot canvas", "#s-loss-sweep .sweep canvas", "#s-wan-spread .world canvas"]
            {
                let seen = browser.value(&colours(canvas)).as_u64().unwrap();
                assert!(seen > 10, "{canvas} shows {seen} colours at {size:?}");
            }
            assert_eq!(browser.value("document.querySelectorAll('#s-loss-by-degree .heat td').length"), 20);
            assert_ne!(browser.value("document.title"), "owned");
            assert_eq!(browser.value("document.querySelectorAll('main img').length"), 0);
            browser.assert_well();
        }
    }
}

#[test]
fn the_spread_follows_the_slider_and_plays() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    for size in SIZES {
        browser.dress(size, "light");
        opened(&browser, &folder, "#s-wan-spread");
        browser.until("document.querySelector('#s-wan-spread .world output')?.textContent.includes('of 10,000 nodes reached')");
        let shown = "document.querySelector('#s-wan-spread .world canvas').toDataURL()";
        let said = "document.querySelector('#s-wan-spread .world output').textContent";
        let (end, told) = (browser.value(shown), browser.value(said));
        assert!(told.as_str().unwrap().contains(" ms: 9,99"), "{told}");
        // The slider takes the keys of any slider.
        browser.value("document.querySelector('#s-wan-spread .world input').focus()");
        browser.press("\u{E011}");
        browser.until(&format!("{said}.startsWith('0 ms')"));
        assert_ne!(browser.value(shown), end, "other nodes are lit at the start");
        browser.click("#s-wan-spread .world button");
        browser.until(&format!("!{said}.startsWith('0 ms')"));
        assert_eq!(
            browser.value("document.querySelector('#s-wan-spread .world button').textContent"),
            "Pause"
        );
        browser.click("#s-wan-spread .world button");
        assert_eq!(
            browser.value("document.querySelector('#s-wan-spread .world button').textContent"),
            "Play"
        );
        let spoken = browser
            .value("document.querySelector('#s-wan-spread .world input').getAttribute('aria-valuetext')");
        assert_eq!(spoken, browser.value(said), "those who do not see it are told the same");
        browser.assert_well();
    }
}

#[test]
fn a_reader_folds_filters_reads_values_and_copies_a_replay() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    browser.dress(SIZES[0], "light");
    opened(&browser, &folder, "");
    browser.click("#fold");
    assert_eq!(browser.value("document.querySelectorAll('.scenario[open]').length"), 0);
    browser.click("#only");
    let left = "Array.from(document.querySelectorAll('.scenario')).filter(it => it.checkVisibility())\
                .map(it => it.id.slice(0, 10)).join()";
    assert_eq!(browser.value(left), "s-loss-by-,s-partitio,s-hostile-");
    browser.click("#only");
    browser.click("nav a[href='#s-loss-sweep']");
    browser.until("document.querySelector('#s-loss-sweep[open] .sweep tbody') !== null");
    // The menu changes chart and table together.
    let first = browser.value("document.querySelector('#s-loss-sweep .sweep tbody').textContent");
    assert!(first.as_str().unwrap().contains("94.0"), "{first}");
    browser.click("#s-loss-sweep .sweep select option:nth-child(3)");
    browser
        .until("document.querySelector('#s-loss-sweep .sweep .soft').textContent.startsWith('rounds until')");
    assert_ne!(browser.value("document.querySelector('#s-loss-sweep .sweep tbody').textContent"), first);
    // The read-out follows the arrow keys.
    browser.value("document.querySelector('#s-loss-sweep .panel:nth-child(2) .u-over').focus()");
    for _ in 0..9 {
        browser.press("\u{E014}");
    }
    browser.until(
        "document.querySelector('#s-loss-sweep .panel:nth-child(2) .tip').textContent.startsWith('8 rounds')",
    );
    let tip = browser.value("document.querySelector('#s-loss-sweep .panel:nth-child(2) .tip').textContent");
    assert!(tip.as_str().unwrap().contains("theory"), "{tip}");
    browser.click("#s-loss-sweep .sweep tbody .copy");
    let replay = "aop sim replay simulations/loss-sweep.toml --seed ";
    browser.until(&format!("document.getElementById('told').textContent.startsWith('Copied: {replay}')"));
    browser.picture("report-copied");
    // Time can be laid out by its logarithm.
    let curve = "document.querySelector('#s-wan-spread .uplot canvas').toDataURL()";
    browser.click("nav a[href='#s-wan-spread']");
    browser.until("document.querySelector('#s-wan-spread[open] .uplot') !== null");
    let before = browser.value(curve);
    browser.click("#s-wan-spread .panel input[type=checkbox]");
    browser.until(&format!("{curve} !== {before}"));
    browser.click("#s-loss-sweep .fold > summary");
    browser.click("#s-loss-sweep .runs > summary");
    browser.until("document.querySelectorAll('#s-loss-sweep .rows tbody tr').length === 200");
    browser.click("#s-loss-sweep .rows .plain");
    browser.until("document.querySelectorAll('#s-loss-sweep .rows tbody tr').length === 300");
    browser.assert_well();
}

#[test]
fn light_and_dark_can_be_switched_and_stay_so() {
    let Some(browser) = Browser::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    browser.dress(SIZES[0], "light");
    opened(&browser, &folder, "");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let drawn = "document.querySelector('#s-wan-spread .uplot canvas').toDataURL()";
    browser.until("document.querySelector('#s-wan-spread .uplot') !== null");
    let (light, before) = (browser.value(ground), browser.value(drawn));
    browser.click("#theme");
    assert_eq!((light, browser.value(ground)), (json!("rgb(246, 246, 243)"), json!("rgb(15, 17, 19)")));
    browser.until(&format!("{drawn} !== {before}"));
    browser.command("/refresh", &json!({}));
    browser.until("document.querySelector('.uplot') !== null");
    assert_eq!(browser.value(ground), "rgb(15, 17, 19)");
    browser.assert_well();
}
