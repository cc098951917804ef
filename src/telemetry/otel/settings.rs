//! What the standard variables of OpenTelemetry say of traces.

use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler};

/// Spans that wait for the collector, if OTEL_BSP_MAX_QUEUE_SIZE says no other number.
const WAITING_MAX: usize = 2_048;
/// The share of all traces that is sent, if OTEL_TRACES_SAMPLER_ARG says no other.
const SHARE: f64 = 0.1;

/// Why there are no traces though somebody asked for them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {why}")]
pub(crate) struct SettingError {
    variable: &'static str,
    why: String,
}

pub(super) fn wrong<T>(variable: &'static str, why: impl Into<String>) -> Result<T, SettingError> {
    Err(SettingError { variable, why: why.into() })
}

/// What the variables say.
#[derive(Debug, PartialEq)]
pub(super) struct Settings {
    /// Of the traces, from 0 to 1.
    share: f64,
    /// Whether a decision that was made here or elsewhere counts.
    follows_parent: bool,
    pub(super) waiting_max: usize,
}

impl Settings {
    /// None where nobody asked for traces.
    pub(super) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Settings>, SettingError> {
        let text = |name: &str| env(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
        let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let is_disabled = text("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let is_off = text("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
        let Some(endpoint) = endpoints.into_iter().find(|name| text(name).is_some()) else { return Ok(None) };
        if is_disabled || is_off {
            return Ok(None);
        }
        // Its value may hold a secret.
        if !text(endpoint).is_some_and(|it| it.starts_with("http://") || it.starts_with("https://")) {
            return wrong(endpoint, "is no address such as http://127.0.0.1:4318");
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(other) = text(name).filter(|it| it != "http/protobuf") {
                return wrong(name, format!("is `{other}`: this node speaks `http/protobuf`"));
            }
        }
        let argument = "OTEL_TRACES_SAMPLER_ARG";
        let ratio = match text(argument).map(|it| it.parse::<f64>()) {
            None => SHARE,
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some(_) => return wrong(argument, "is no share from 0 to 1"),
        };
        let named = text("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_traceidratio".into());
        let share = match named.strip_prefix("parentbased_").unwrap_or(&named) {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => ratio,
            _ => return wrong("OTEL_TRACES_SAMPLER", format!("names no sampler of this node: `{named}`")),
        };
        let mut numbers = Vec::new();
        for name in ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY"] {
            match text(name).map(|it| it.parse::<usize>()) {
                None => numbers.push(None),
                Some(Ok(number)) if number > 0 => numbers.push(Some(number)),
                Some(_) => return wrong(name, "is no whole number above 0"),
            }
        }
        let waiting_max = numbers[0].unwrap_or(WAITING_MAX);
        Ok(Some(Settings { share, follows_parent: named.starts_with("parentbased_"), waiting_max }))
    }

    pub(super) fn sampler(&self) -> ParentBasedSampler {
        let root = || Sampler::TraceIdRatioBased(self.share);
        let sampler = Sampler::parent_based(root()).with_remote_parent_sampled(root());
        if self.follows_parent {
            return sampler;
        }
        let sampler = sampler.with_remote_parent_not_sampled(root());
        sampler.with_local_parent_sampled(root()).with_local_parent_not_sampled(root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingError> {
        Settings::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn traces_are_on_where_a_collector_is_named_and_nobody_switched_them_off() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None), "blank is unset");
        assert_eq!(read(&[ON, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(read(&[ON, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let by_default = Settings { share: SHARE, follows_parent: true, waiting_max: WAITING_MAX };
        assert_eq!(read(&[ON]), Ok(Some(by_default)));
        let all = read(&[ON, ("OTEL_TRACES_SAMPLER", "always_on"), ("OTEL_BSP_MAX_QUEUE_SIZE", "7")]);
        let expected = Settings { share: 1.0, follows_parent: false, waiting_max: 7 };
        assert_eq!(all, Ok(Some(expected)));
    }

    #[test]
    fn a_wrong_variable_is_named_and_an_address_is_not_repeated() {
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "7"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "user:secret@collector"),
        ] {
            let told = read(&[ON, (name, value)]).unwrap_err().to_string();
            assert!(told.starts_with(name) && !told.contains("secret"), "{told}");
        }
    }
}
