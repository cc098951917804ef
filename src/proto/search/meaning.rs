//! What words mean: a table of vectors that stand close together where words stand beside the same words, and the vectors of
//! texts, which are the sums of their words'.
//!
//! All of it is integers, equal on every machine. The table is part of the program; `docs/search/make_table.py` makes such a
//! file out of any list of names and summaries. Its form, little endian: `AOPW`, form, dimensions, two zero bytes, count of
//! words, bytes of words (u32 each); the rows, a signed byte a dimension; a byte a word for its rarity, sixteenths of a power
//! of two; the words, each closed by a newline, in the order of their bytes.

use std::sync::LazyLock;

use super::slips::letters;

/// The bytes of the table.
static BYTES: &[u8] = include_bytes!("words.bin");
/// The table, read when it is first asked.
static WORDS: LazyLock<Table> = LazyLock::new(|| Table::read(BYTES));

/// Numbers of a vector.
const DIMENSIONS: usize = 96;
/// Bytes before the rows.
const HEAD_BYTES: usize = 16;
/// What the greatest number of a vector may be: the length that vectors are brought to.
const LENGTH: i64 = 127;
/// The product of two vectors of equal direction.
pub(super) const ONE: i32 = (LENGTH * LENGTH) as i32;
/// Rarity of a word that the table lacks, powers of two: as rare as the rarest that it has in few texts.
pub(super) const RARITY_UNKNOWN: f32 = 14.0;
/// Rarity of the most common words: they still decide between records that are equal otherwise.
const RARITY_MIN: f32 = 0.5;
/// The table, as the first digits of its SHA-256: nodes with the same rank alike.
pub const TABLE: &str = "4780286152cf";

/// Words with a vector and a rarity each.
pub(super) struct Table {
    rows: &'static [u8],
    rarities: &'static [u8],
    text: &'static str,
    /// Where each word ends.
    ends: Box<[u32]>,
    /// Which letters each has, see [`letters`].
    letters: Box<[u32]>,
}

/// The table.
pub(super) fn table() -> &'static Table {
    &WORDS
}

impl Table {
    /// Reads a table of the form above; what is cut off or of another form has no words.
    fn read(bytes: &'static [u8]) -> Table {
        Table::whole(bytes).unwrap_or(Table {
            rows: &[],
            rarities: &[],
            text: "",
            ends: Box::default(),
            letters: Box::default(),
        })
    }

    fn whole(bytes: &'static [u8]) -> Option<Table> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let number = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?) as usize);
        let form = [b'A', b'O', b'P', b'W', 1, DIMENSIONS as u8, 0, 0];
        let (count, size) = (number(8)?, number(12)?);
        let (rows, rest) = rest.split_at_checked(count * DIMENSIONS)?;
        let (rarities, text) = rest.split_at_checked(count)?;
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == size)?;
        let ends: Box<[u32]> = text.match_indices('\n').map(|(at, _)| at as u32).collect();
        let letters = text.lines().map(letters).collect();
        (head.starts_with(&form) && ends.len() == count).then_some(Table {
            rows,
            rarities,
            text,
            ends,
            letters,
        })
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The word of a number below [`Table::len`].
    pub(super) fn word(&self, number: usize) -> &'static str {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
        &self.text[start as usize..self.ends[number] as usize]
    }

    /// The number of a stem.
    pub(super) fn number(&self, stem: &str) -> Option<usize> {
        let place = self.place(|word| word < stem);
        (place < self.len() && self.word(place) == stem).then_some(place)
    }

    /// The numbers of the words that begin with a letter.
    pub(super) fn begun_by(&self, letter: char) -> std::ops::Range<usize> {
        let first = |word: &str| word.chars().next().unwrap_or_default();
        self.place(|word| first(word) < letter)..self.place(|word| first(word) <= letter)
    }

    /// How many words lie before a place of their order.
    fn place(&self, is_before: impl Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.word(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// How rare a word is, powers of two.
    pub(super) fn rarity(&self, number: usize) -> f32 {
        (f32::from(self.rarities[number]) / 16.0).max(RARITY_MIN)
    }

    /// The letters of each word, by its number.
    pub(super) fn letters(&self) -> &[u32] {
        &self.letters
    }

    fn row(&self, number: usize) -> &[u8] {
        &self.rows[number * DIMENSIONS..(number + 1) * DIMENSIONS]
    }
}

/// What a text means: the direction of the sum of its words; of length 0 where none is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vector([i8; DIMENSIONS]);

impl Vector {
    /// Of a text without words.
    pub(super) const NONE: Vector = Vector([0; DIMENSIONS]);

    #[cfg(test)]
    fn is_none(&self) -> bool {
        *self == Vector::NONE
    }

    /// 0 … [`ONE`] for how near two meanings are, less where they are opposed.
    pub(super) fn nearness(&self, other: &Vector) -> i32 {
        dot(&self.0, &other.wide())
    }

    /// The nearness to each of `others`, in their order.
    pub(super) fn each_nearness(&self, others: &[Vector], out: &mut Vec<i32>) {
        out.resize(others.len(), 0);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            #[expect(
                unsafe_code,
                reason = "the processor has what the function is compiled for: asked in the line above"
            )]
            // SAFETY: `each_dot_avx2` needs AVX2 and nothing else.
            return unsafe { each_dot_avx2(self, others, out) };
        }
        each_dot(self, others, out);
    }

    fn wide(&self) -> [i16; DIMENSIONS] {
        self.0.map(i16::from)
    }
}

/// As [`each_dot`], on processors with vectors of 32 bytes: a fifth of the time, the same integers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn each_dot_avx2(asked: &Vector, others: &[Vector], out: &mut [i32]) {
    use std::arch::x86_64::{
        __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_extract_epi32, _mm_set_epi64x, _mm_shuffle_epi32,
        _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256,
        _mm256_madd_epi16, _mm256_setzero_si256,
    };
    let wide = |of: &Vector| -> [__m256i; DIMENSIONS / 16] {
        let mut wide = [_mm256_setzero_si256(); DIMENSIONS / 16];
        for (wide, bytes) in wide.iter_mut().zip(of.0.as_chunks::<16>().0) {
            let bytes = u128::from_le_bytes(bytes.map(i8::cast_unsigned));
            *wide = _mm256_cvtepi8_epi16(_mm_set_epi64x((bytes >> 64) as i64, bytes as i64));
        }
        wide
    };
    let asked = wide(asked);
    for (other, out) in others.iter().zip(out) {
        let mut sums = _mm256_setzero_si256();
        for (one, other) in asked.into_iter().zip(wide(other)) {
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(one, other));
        }
        let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b0100_1110>(four));
        *out = _mm_cvtsi128_si32(two).wrapping_add(_mm_extract_epi32::<1>(two));
    }
}

fn each_dot(asked: &Vector, others: &[Vector], out: &mut [i32]) {
    let asked = asked.wide();
    for (other, out) in others.iter().zip(out) {
        *out = dot(&other.0, &asked);
    }
}

/// The sum of two products of 127 and 127 fits 16 bits, in which twice as many are made at once; all sums are said to wrap, for
/// those that are checked are made one by one. -128 is in no vector.
#[inline(always)]
fn dot(one: &[i8; DIMENSIONS], other: &[i16; DIMENSIONS]) -> i32 {
    const HALF: usize = DIMENSIONS / 2;
    let mut sum: i32 = 0;
    for at in 0..HALF {
        let product = i16::from(one[at]).wrapping_mul(other[at]);
        let pair = product.wrapping_add(i16::from(one[at + HALF]).wrapping_mul(other[at + HALF]));
        sum = sum.wrapping_add(i32::from(pair));
    }
    sum
}

/// The sum of words' rows.
pub(super) struct Sum([i32; DIMENSIONS]);

impl Sum {
    pub(super) fn new() -> Sum {
        Sum([0; DIMENSIONS])
    }

    /// Adds a word `times` over; a text has some 10,000 words at most, so that no sum overflows.
    pub(super) fn add(&mut self, number: usize, times: i32) {
        let row = table().row(number);
        // Most words stand in a text once, and what need not be multiplied is several times as fast.
        if times == 1 {
            for (sum, value) in self.0.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(*value as i8));
            }
        } else {
            for (sum, value) in self.0.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(*value as i8).wrapping_mul(times));
            }
        }
    }

    /// Its direction.
    pub(super) fn vector(&self) -> Vector {
        let squares: u64 = self.0.iter().map(|value| u64::from(value.unsigned_abs()).pow(2)).sum();
        let length = squares.isqrt() as i64;
        if length == 0 {
            return Vector::NONE;
        }
        // No number is greater than the length: what is brought to 127 fits.
        Vector(self.0.map(|value| (2 * LENGTH * i64::from(value) + length).div_euclid(2 * length) as i8))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn vector_of(text: &str) -> Vector {
        let mut sum = Sum::new();
        super::super::token::each_word(text, |word| {
            if let Some(number) = table().number(word) {
                sum.add(number, 1);
            }
        });
        sum.vector()
    }

    #[test]
    fn the_table_is_the_one_that_nodes_name() {
        assert!(data_encoding::HEXLOWER.encode(&Sha256::digest(BYTES)).starts_with(TABLE));
        assert_eq!(table().len(), 32_000);
        assert!((1..table().len()).all(|at| table().word(at - 1) < table().word(at)));
        for number in [0, 1, 17_000, 31_999] {
            assert_eq!(table().number(table().word(number)), Some(number));
        }
        assert_eq!(table().number("qwrtzuiop"), None);
    }

    #[test]
    fn a_table_that_is_cut_off_has_no_words() {
        for size in [0, 3, HEAD_BYTES, 5_000, BYTES.len() - 1] {
            assert_eq!(Table::read(&BYTES[..size]).len(), 0);
        }
    }

    #[test]
    fn what_means_the_same_is_nearer_than_what_does_not() {
        let near = |one: &str, other: &str| vector_of(one).nearness(&vector_of(other));
        assert!(near("credit card", "payment") > near("credit card", "weather"));
        assert!(near("email", "inbox message") > near("email", "kubernetes cluster"));
        assert_eq!(near("", "weather"), 0);
        assert!(Vector::NONE.is_none() && !vector_of("weather").is_none());
    }

    proptest! {
        #[test]
        fn both_ways_to_multiply_give_the_same(
            numbers in prop::collection::vec(prop::collection::vec(-127..=127i8, DIMENSIONS), 2..20),
        ) {
            let vectors: Vec<Vector> =
                numbers.into_iter().map(|it| Vector(it.try_into().unwrap())).collect();
            let (mut fast, mut plain) = (Vec::new(), vec![0; vectors.len() - 1]);
            vectors[0].each_nearness(&vectors[1..], &mut fast);
            each_dot(&vectors[0], &vectors[1..], &mut plain);
            let exact = |other: &Vector| vectors[0].0.iter().zip(other.0).map(|(a, b)| i32::from(*a) * i32::from(b)).sum();
            let expected: Vec<i32> = vectors[1..].iter().map(exact).collect();
            prop_assert_eq!(&fast, &plain);
            prop_assert_eq!(plain, expected);
        }

        #[test]
        fn a_vector_has_the_length_of_all_others(words in prop::collection::vec((0..32_000usize, 1..10i32), 1..200)) {
            let mut sum = Sum::new();
            words.iter().for_each(|(number, times)| sum.add(*number, *times));
            let vector = sum.vector();
            // Each number is rounded by a half at most.
            prop_assert!(vector.is_none() || (vector.nearness(&vector) - ONE).abs() < 2_500, "{vector:?}");
        }
    }
}
