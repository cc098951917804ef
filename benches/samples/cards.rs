//! Made-up cards of agents in a made-up language. The same seed gives the same cards.

use aop::proto::card::AgentCard;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WORDS: usize = 20_000;
/// As in the bench of the index; most of the rest of 2 KiB is a schema.
const DESCRIPTION_BYTES: usize = 300;
const SCHEMA_BYTES: usize = 1_300;

/// An endless supply of cards.
#[derive(Clone)]
pub(crate) struct Cards {
    rng: ChaCha8Rng,
    vocabulary: Vec<String>,
}

impl Cards {
    pub(crate) fn new() -> Cards {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let vocabulary = (0..WORDS).map(|at| word(at, &mut rng)).collect();
        Cards { rng, vocabulary }
    }

    /// Prose of at least so many bytes, common words more often.
    pub(crate) fn prose(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            text.push_str(&self.vocabulary[zipf(WORDS, &mut self.rng)]);
            text.push(' ');
        }
        text
    }

    /// One of 60 tags or capabilities, common ones more often.
    pub(crate) fn label(&mut self, kind: &str) -> String {
        format!("{kind}{}", zipf(60, &mut self.rng))
    }

    /// A card that makes a record of about 2 KiB.
    pub(crate) fn card(&mut self) -> AgentCard {
        let field = |text: String| format!(r#""{}":{{"type":"string"}},"#, text.trim());
        let mut fields = String::new();
        while fields.len() < SCHEMA_BYTES {
            fields.push_str(&field(self.prose(8)));
        }
        let schema = format!(r#"{{"type":"object","properties":{{{}}}}}"#, fields.trim_end_matches(','));
        AgentCard {
            description: self.prose(DESCRIPTION_BYTES),
            tags: (0..3).map(|_| self.label("tag")).collect(),
            capabilities: (0..3).map(|_| self.label("can")).collect(),
            input_schema: Some(schema),
            ..AgentCard::default()
        }
    }
}

/// A made-up word, the common ones short as in a language.
fn word(at: usize, rng: &mut ChaCha8Rng) -> String {
    const SYLLABLES: [&str; 12] =
        ["ka", "ter", "min", "so", "ling", "re", "ab", "und", "pro", "tic", "ve", "er"];
    let count = 1 + usize::from(at > 10) + usize::from(at > 60) + rng.random_range(0..2);
    (0..count).map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())]).collect()
}

/// The n-th about as often as 1/n.
fn zipf(count: usize, rng: &mut ChaCha8Rng) -> usize {
    ((count as f64 + 1.0).powf(rng.random::<f64>()) as usize - 1).min(count - 1)
}
