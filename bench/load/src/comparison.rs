//! The classes of one endpoint beside each other: whether their answers are alike and their
//! latencies, too.

use std::fmt::Write as _;

use anyhow::Context;

use crate::welch::{Summary, pooled_quantile};

/// From this |t| on, two classes differ.
pub const THRESHOLD: f64 = 4.5;
/// The share of all values that the second t keeps.
const KEPT: f64 = 0.9;

/// The latencies of one class in microseconds.
#[derive(Debug)]
pub struct Class {
    /// What its requests have in common.
    pub name: &'static str,
    /// One for each request.
    pub latencies: Vec<f64>,
}

/// The classes of one endpoint.
#[derive(Debug)]
pub struct Comparison {
    /// What was asked.
    pub title: String,
    /// Of the first two, the second is the control: nothing distinguishes them.
    pub classes: Vec<Class>,
    /// Answers that differed from the first expected one in status, headers or body.
    pub different_answers: Vec<String>,
}

impl Comparison {
    /// No values yet.
    pub fn new<const COUNT: usize>(title: &str, names: [&'static str; COUNT]) -> Self {
        let classes = names.map(|name| Class {
            name,
            latencies: Vec::new(),
        });
        Comparison {
            title: title.to_owned(),
            classes: classes.into(),
            different_answers: Vec::new(),
        }
    }

    /// Every answer must have this status and be the first such one over again.
    pub fn note(&mut self, class: usize, first: &mut Option<String>, seen: String, status: u16) {
        let expected = seen.starts_with(&status.to_string());
        let in_place_of = match first {
            Some(first) if *first == seen => return,
            Some(first) => format!("`{first}`"),
            None if expected => {
                *first = Some(seen);
                return;
            }
            None => status.to_string(),
        };
        let name = self.classes[class].name;
        let difference = format!("{name}: `{seen}` in place of {in_place_of}");
        if !self.different_answers.contains(&difference) {
            self.different_answers.push(difference);
        }
    }

    /// Every pair with both its t: of all values, and below the pooled percentile.
    pub fn pairs(&self) -> anyhow::Result<Vec<Pair>> {
        let all: Vec<_> = self
            .classes
            .iter()
            .map(|class| class.latencies.clone())
            .collect();
        let crop = pooled_quantile(&all, KEPT);
        let summaries = self.classes.iter().zip(&all).map(|(class, values)| {
            let kept: Vec<f64> = values
                .iter()
                .copied()
                .filter(|value| *value < crop)
                .collect();
            let whole = Summary::of(values).context("too few values")?;
            let cropped = Summary::of(&kept).context("too few values")?;
            Ok((class.name, whole, cropped))
        });
        let summaries: Vec<_> = summaries.collect::<anyhow::Result<_>>()?;
        let mut pairs = Vec::new();
        for (place, (left, whole, cropped)) in summaries.iter().enumerate() {
            for (right, other_whole, other_cropped) in &summaries[place + 1..] {
                pairs.push(Pair {
                    left,
                    right,
                    whole: whole.t(other_whole),
                    cropped: cropped.t(other_cropped),
                });
            }
        }
        Ok(pairs)
    }

    /// Whether all answers are alike and no pair reaches the threshold.
    pub fn is_clean(&self) -> anyhow::Result<bool> {
        let pairs = self.pairs()?;
        Ok(self.different_answers.is_empty() && !pairs.iter().any(Pair::differs))
    }

    /// Both tables in Markdown: the classes, and every pair of them.
    pub fn markdown(&self) -> anyhow::Result<String> {
        let mut text = format!("### {}\n\n", self.title);
        text.push_str("| class | n | mean, µs | standard deviation, µs |\n|---|---|---|---|\n");
        for class in &self.classes {
            let all = Summary::of(&class.latencies).context("too few values")?;
            let deviation = all.variance.sqrt();
            let (name, count, mean) = (class.name, all.count, all.mean);
            writeln!(text, "| {name} | {count} | {mean:.1} | {deviation:.1} |")?;
        }
        text.push_str("\n| pair | t | t of the fastest 90 % |  |\n|---|---|---|---|\n");
        for pair in self.pairs()? {
            let (whole, cropped) = (pair.whole, pair.cropped);
            let verdict = if pair.differs() { "differs" } else { "" };
            let names = format!("{} / {}", pair.left, pair.right);
            writeln!(text, "| {names} | {whole:.2} | {cropped:.2} | {verdict} |")?;
        }
        for difference in &self.different_answers {
            writeln!(text, "\nAnother answer: {difference}")?;
        }
        Ok(text)
    }
}

/// Two classes beside each other.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The one.
    pub left: &'static str,
    /// The other.
    pub right: &'static str,
    /// Welch's t of all values.
    pub whole: f64,
    /// Welch's t below the 90th percentile of all classes together.
    pub cropped: f64,
}

impl Pair {
    /// Whether either t reaches the threshold.
    pub fn differs(&self) -> bool {
        self.whole.abs() >= THRESHOLD || self.cropped.abs() >= THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(latencies: [&[f64]; 2]) -> Comparison {
        let mut comparison = Comparison::new("of a test", ["left", "right"]);
        for (class, values) in comparison.classes.iter_mut().zip(latencies) {
            class.latencies = values.iter().copied().cycle().take(1000).collect();
        }
        comparison
    }

    #[test]
    fn alike_is_clean_and_different_is_not() {
        let usual = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!(comparison([&usual, &usual]).is_clean().unwrap());
        let slower = [1.5, 2.5, 3.5, 4.5, 5.5];
        assert!(!comparison([&usual, &slower]).is_clean().unwrap());
    }

    #[test]
    fn a_difference_that_a_few_slow_answers_hide_is_seen_below_them() {
        let (usual, slower) = ([1.0, 1.1, 1.2, 1.3, 1.4], [1.1, 1.2, 1.3, 1.4, 1.5]);
        let hidden = |values: [f64; 5]| {
            let mut values: Vec<f64> = values.iter().copied().cycle().take(1000).collect();
            for (place, value) in values
                .iter_mut()
                .enumerate()
                .filter(|(place, _)| place % 20 == 0)
            {
                *value = if place % 40 == 0 { 900.0 } else { 100.0 };
            }
            values
        };
        let comparison = comparison([&hidden(usual), &hidden(slower)]);
        let pair = comparison.pairs().unwrap()[0];
        assert!(pair.whole.abs() < THRESHOLD, "{}", pair.whole);
        assert!(pair.cropped.abs() >= THRESHOLD, "{}", pair.cropped);
    }

    fn different_answers(seen: &[(usize, &str)]) -> Vec<String> {
        let mut comparison = comparison([&[1.0, 2.0], &[1.0, 2.0]]);
        let mut first = None;
        for (class, seen) in seen {
            comparison.note(*class, &mut first, (*seen).to_owned(), 422);
        }
        let clean = comparison.is_clean().unwrap();
        assert_eq!(clean, comparison.different_answers.is_empty());
        comparison.different_answers
    }

    #[test]
    fn another_answer_is_told_once() {
        let seen = [(0, "422 a"), (1, "422 a"), (1, "422 b"), (1, "422 b")];
        let told = ["right: `422 b` in place of `422 a`"];
        assert_eq!(different_answers(&seen), told);
    }

    #[test]
    fn an_answer_with_another_status_is_told_though_it_comes_first() {
        let seen = [(1, "200 x"), (0, "422 a"), (1, "422 a")];
        assert_eq!(different_answers(&seen), ["right: `200 x` in place of 422"]);
    }
}
