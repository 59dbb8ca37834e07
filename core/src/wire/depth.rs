//! How deep a JSON text nests. The fast reader of the scheduler's calls skips what it
//! does not know by calling itself: without a limit a small body would end the process.

/// Deepest nesting that is read: that of other JSON readers, far beyond any Pod's.
pub(super) const MAX_DEPTH: usize = 128;

/// So many brackets fit on a thread's stack, however they nest.
const SURELY_SHALLOW: usize = 1000;

/// Whether `json` nests deeper than [`MAX_DEPTH`]. What is no JSON gets any answer.
pub(super) fn is_too_deep(json: &[u8]) -> bool {
    // Nearly all bodies are answered by counting, which takes many bytes at once.
    json.iter().filter(|byte| is_opening(**byte)).count() > SURELY_SHALLOW && depth(json) > MAX_DEPTH
}

/// `[` and `{` differ in one bit.
fn is_opening(byte: u8) -> bool {
    byte & !0x20 == b'['
}

fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(depth(br#"{"a":["[[[[\"[[",{}]}"#), 3);
        assert_eq!(depth(br"[\[[]]"), 2 + 1);
    }

    proptest! {
        #[test]
        fn nesting_is_found_among_many_flat_brackets(depth_of in 0usize..400, flat in 0usize..3000) {
            let json = format!("[{}{}{}]", "[],".repeat(flat), "[".repeat(depth_of), "]".repeat(depth_of));
            prop_assert_eq!(depth(json.as_bytes()), (depth_of + 1).max(if flat > 0 { 2 } else { 1 }));
            let many = depth_of + flat + 1 > SURELY_SHALLOW;
            prop_assert_eq!(is_too_deep(json.as_bytes()), many && depth_of + 1 > MAX_DEPTH);
        }
    }
}
