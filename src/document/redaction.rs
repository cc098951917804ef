//! An agent's file as it may stand in a report: with `*` for the keys that it holds, each byte for one, so that places stay.
//!
//! The file may be broken anywhere, so this reads it by its quotes and not as TOML.

/// Tables whose texts are keys.
const TABLES: [&str; 2] = ["env", "headers"];

/// The text without its keys: values below `env` and `headers`, users and queries of URLs.
pub(super) fn without_keys(text: &str) -> String {
    let mut shown = text.as_bytes().to_vec();
    let (mut in_section, mut at) = (false, 0);
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.starts_with('[') {
            let name = start.trim_matches(|c: char| c.is_whitespace() || "[]".contains(c));
            in_section = name.rsplit('.').next().is_some_and(|last| TABLES.contains(&last));
        }
        // In a table of its own every text is a value; elsewhere only what follows its name.
        let from = if in_section { Some(0) } else { after_name(line) };
        for (begin, end) in quoted(line) {
            let is_key = from.is_some_and(|from| begin >= from)
                && line[end..].trim_start_matches(['"', '\'']).trim_start().as_bytes().first() != Some(&b'=');
            let hidden = if is_key { vec![(begin, end)] } else { of_url(line, begin, end) };
            hidden.into_iter().for_each(|(begin, end)| shown[at + begin..at + end].fill(b'*'));
        }
        at += line.len();
    }
    // Whole characters are replaced byte for byte, so this stays text.
    String::from_utf8(shown).unwrap_or_default()
}

/// Behind the name of such a table where the line gives it values.
fn after_name(line: &str) -> Option<usize> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    TABLES
        .iter()
        .filter_map(|name| {
            let (at, _) = line.match_indices(name).find(|(at, _)| {
                let (before, after) = (&line[..*at], line[at + name.len()..].trim_start());
                // A list after the name has names of variables, which are no keys.
                let has_values = after.starts_with('.')
                    || after.strip_prefix('=').is_some_and(|value| !value.trim_start().starts_with('['));
                has_values && !before.ends_with(is_word)
            })?;
            Some(at + name.len())
        })
        .min()
}

/// Where the texts of a line lie, without their quotes.
fn quoted(line: &str) -> Vec<(usize, usize)> {
    let (mut texts, mut open) = (Vec::new(), None);
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match open {
            None if c == '"' || c == '\'' => open = Some((at + 1, c)),
            None => {}
            Some(_) if escaped => escaped = false,
            Some((_, '"')) if c == '\\' => escaped = true,
            Some((begin, quote)) if c == quote => {
                texts.push((begin, at));
                open = None;
            }
            Some(_) => {}
        }
    }
    // A quote that is missing may be what the report is about.
    texts.extend(open.map(|(begin, _)| (begin, line.trim_end().len().max(begin))));
    texts
}

/// The user and the query of a URL.
fn of_url(line: &str, begin: usize, end: usize) -> Vec<(usize, usize)> {
    let text = &line[begin..end];
    let Some(place) = text.find("://").map(|at| at + 3) else { return Vec::new() };
    let host = text[place..].find(['/', '?', '#']).map_or(text.len(), |at| place + at);
    let user = text[place..host].rfind('@').map(|at| (begin + place, begin + place + at));
    let query = text.find('?').map(|at| (begin + at + 1, end));
    user.into_iter().chain(query).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_of_a_file_is_shown_and_every_place_stays() {
        for (text, shown) in [
            ("env = { A = \"kéy\", 'B' = 'k' }", "env = { A = \"****\", 'B' = '*' }"),
            ("env = [\"API_KEY\"]", "env = [\"API_KEY\"]"),
            (
                "mcp = { url = \"http://h/p?k=1\", headers = { A = \"b\" } }",
                "mcp = { url = \"http://h/p?***\", headers = { A = \"*\" } }",
            ),
            ("url = \"http://me:word@h/p@q\"", "url = \"http://*******@h/p@q\""),
            (
                "[agent.run.http.headers]\nA = \"b\"\n[agent]\nname = \"a\"",
                "[agent.run.http.headers]\nA = \"*\"\n[agent]\nname = \"a\"",
            ),
            ("http.headers.A = \"b\"", "http.headers.A = \"*\""),
            ("headers = { A = \"never closed\n", "headers = { A = \"************\n"),
            ("my-env = \"shown\"\ncommand = [\"env\"]", "my-env = \"shown\"\ncommand = [\"env\"]"),
            ("header_env = { A = \"VAR\" }", "header_env = { A = \"VAR\" }"),
        ] {
            assert_eq!(without_keys(text), shown);
        }
    }
}
