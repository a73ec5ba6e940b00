//! The name that was probably meant by an unknown one.

/// The known name that was probably meant: few letters away, or the same key in another section.
pub fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let key = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let by_distance = |known: &&String| distance(name, known);
    let close = known
        .iter()
        .min_by_key(by_distance)
        .filter(|known| distance(name, known) <= 3);
    close
        .or_else(|| {
            known
                .iter()
                .filter(|known| key(known) == key(name))
                .min_by_key(by_distance)
        })
        .map(String::as_str)
}

/// Levenshtein distance: letters to insert, delete or replace.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::defaults;

    #[test]
    fn a_distance_counts_letters() {
        for (left, right, expected) in [
            ("", "abc", 3),
            ("url", "url", 0),
            ("ulr", "url", 2),
            ("frm", "from", 1),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn the_nearest_name_is_close_or_has_the_same_key() {
        let names = defaults().names;
        for (name, expected) in [
            ("mail.smtp.ulr", Some("mail.smtp.url")),
            ("otp.digit", Some("otp.digits")),
            ("http_listen", Some("http.listen")),
            ("smtp.url", Some("store.url")),
            ("server.public_url", Some("http.public_url")),
            ("something.else.entirely", None),
        ] {
            assert_eq!(nearest(name, &names), expected, "{name}");
        }
    }
}
