//! Kubernetes quantities of bytes, as specs and configuration files have them.

/// The whole number of bytes that a quantity names, `500Gi` or `2M`; `None` when it
/// is none, or not positive.
pub fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes >= 1.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_as_kubernetes_writes_them() {
        let cases = [
            ("1", Some(1)),
            ("1.5Gi", Some(3 << 29)),
            ("2k", Some(2000)),
            ("0", None),
            ("-1", None),
            ("1X", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_none_or_positive(text in "\\PC{0,20}|[0-9.]{1,10}[kMGTPi]{0,3}") {
            prop_assert!(bytes(&text) != Some(0));
        }
    }
}
