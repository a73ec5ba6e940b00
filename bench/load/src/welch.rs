//! Whether two sets of latencies have the same mean: Welch's t.

/// What is said of one class of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their variance, of a sample.
    pub variance: f64,
}

impl Summary {
    /// Of these values; of fewer than two nothing can be said.
    pub fn of(values: &[f64]) -> Option<Summary> {
        if values.len() < 2 {
            return None;
        }
        let count = float(values.len());
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        Some(Summary {
            count: values.len(),
            mean,
            variance: squares.sum::<f64>() / (count - 1.0),
        })
    }

    /// Welch's t of two classes; infinite if both never vary and differ.
    pub fn t(&self, other: &Summary) -> f64 {
        let difference = self.mean - other.mean;
        let error = self.variance / float(self.count) + other.variance / float(other.count);
        if difference == 0.0 {
            0.0
        } else {
            difference / error.sqrt()
        }
    }
}

/// The value below which this share of all values of all classes lies: cropping every class at one
/// and the same value favours none of them.
pub fn pooled_quantile(classes: &[Vec<f64>], share: f64) -> f64 {
    let mut all: Vec<f64> = classes.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is a count"
    )]
    let place = (float(all.len()) * share) as usize;
    all.get(place).copied().unwrap_or(f64::INFINITY)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts are far below 2 to the 52nd"
)]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_is_what_the_textbook_says() {
        // Means 3 and 6, variances 2.5 and 10, five values each: -3 / sqrt(2.5).
        let left = Summary::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let right = Summary::of(&[2.0, 4.0, 6.0, 8.0, 10.0]).unwrap();
        assert!((left.t(&right) + 3.0 / 2.5_f64.sqrt()).abs() < 1e-12);
        assert!((right.t(&left) + left.t(&right)).abs() < 1e-12);
    }

    #[test]
    fn equal_classes_do_not_differ_and_constant_ones_differ_without_bound() {
        let one = Summary::of(&[1.0, 1.0, 1.0]).unwrap();
        let two = Summary::of(&[2.0, 2.0]).unwrap();
        assert!(one.t(&one).abs() < f64::EPSILON);
        assert!(two.t(&one).is_infinite());
        assert_eq!(Summary::of(&[1.0]), None);
    }

    #[test]
    fn all_classes_are_cropped_at_one_value() {
        let classes = [vec![5.0, 1.0, 3.0], vec![2.0, 4.0]];
        assert!((pooled_quantile(&classes, 0.8) - 5.0).abs() < f64::EPSILON);
        assert!((pooled_quantile(&classes, 0.5) - 3.0).abs() < f64::EPSILON);
        assert!(pooled_quantile(&[], 0.5).is_infinite());
    }
}
