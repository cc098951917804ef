//! What a self-check finds: `aop doctor --json`, and the node's half of it at `GET /v1/doctor`.

use serde::{Deserialize, Serialize};

use super::{CheckGroup, CheckStatus};

/// Answer of `GET /v1/doctor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The worst status of a check; `ok` where there was nothing but what is skipped.
    pub verdict: CheckStatus,
    /// In the order of their groups.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about.
    pub group: CheckGroup,
    /// Its name within the group; several with one name where several things are wrong.
    pub check: String,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// How something is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it is well.
    pub status: CheckStatus,
    /// What says so, in one sentence; of what was skipped, why.
    pub evidence: String,
    /// What to do; null where nothing is to be done.
    pub fix: Option<String>,
}

impl Diagnosis {
    /// Sorts the checks by group and judges them.
    pub fn of(mut checks: Vec<Check>) -> Diagnosis {
        checks.sort_by_key(|check| check.group);
        let worst = checks.iter().map(|check| check.finding.status).max().unwrap_or_default();
        // What could not be looked at is no verdict.
        let verdict = if worst == CheckStatus::Skip { CheckStatus::Ok } else { worst };
        Diagnosis { verdict, checks }
    }
}

impl Finding {
    /// It is well.
    pub fn ok(evidence: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Ok, evidence: evidence.into(), fix: None }
    }

    /// It works, and may not for long.
    pub fn warn(evidence: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Warn, evidence: evidence.into(), fix: Some(fix.into()) }
    }

    /// It does not work, or not well.
    pub fn fail(evidence: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Fail, evidence: evidence.into(), fix: Some(fix.into()) }
    }

    /// It was not looked at.
    pub fn skip(why: impl Into<String>) -> Finding {
        Finding { status: CheckStatus::Skip, evidence: why.into(), fix: None }
    }

    /// As a check.
    pub fn of(self, group: CheckGroup, check: &str) -> Check {
        Check { group, check: check.into(), finding: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict_and_what_was_skipped_is_none() {
        let verdict = |findings: &[Finding]| {
            let checks = findings.iter().map(|finding| finding.clone().of(CheckGroup::Node, "a")).collect();
            Diagnosis::of(checks).verdict
        };
        let [ok, warn] = [Finding::ok("a"), Finding::warn("a", "b")];
        let [fail, skip] = [Finding::fail("a", "b"), Finding::skip("a")];
        assert_eq!(verdict(&[]), CheckStatus::Ok);
        assert_eq!(verdict(&[skip.clone(), ok.clone()]), CheckStatus::Ok);
        assert_eq!(verdict(std::slice::from_ref(&skip)), CheckStatus::Ok);
        assert_eq!(verdict(&[warn.clone(), skip, ok]), CheckStatus::Warn);
        assert_eq!(verdict(&[fail, warn]), CheckStatus::Fail);
    }

    #[test]
    fn a_check_is_one_flat_object() {
        let check = Finding::ok("two of two").of(CheckGroup::Mesh, "peers");
        let json = r#"{"group":"mesh","check":"peers","status":"ok","evidence":"two of two","fix":null}"#;
        assert_eq!(serde_json::to_string(&check).unwrap(), json);
        assert_eq!(serde_json::from_str::<Check>(json).unwrap(), check);
    }
}
