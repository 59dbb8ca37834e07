//! Which Dataset the claim `hearth-NAME` of a namespace is of.
//!
//! The one rule for those who make the claims and for those who place the pods that
//! mount them.

/// The namespace of the Dataset that the claim in `namespace` is of, among the Datasets
/// of the claim's name, each told by its namespace and those that it is shared with.
///
/// The namespace's own comes first, then the first by namespace that is shared with it,
/// so that it does not matter which was there first.
pub fn source<'a>(
    namespace: &str,
    datasets: impl IntoIterator<Item = (&'a str, &'a [String])>,
) -> Option<&'a str> {
    let may_use = |of: &str, shared_with: &[String]| {
        of == namespace || shared_with.iter().any(|shared| shared == namespace)
    };
    datasets
        .into_iter()
        .filter(|(of, shared_with)| may_use(of, shared_with))
        .map(|(of, _)| of)
        .min_by_key(|of| (*of != namespace, *of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_comes_first_and_then_the_first_that_is_shared() {
        let shared = ["m".to_owned(), "b".to_owned()];
        let datasets: [(&str, &[String]); 4] = [("z", &shared), ("b", &shared), ("n", &[]), ("a", &[])];
        for (namespace, of) in [("n", Some("n")), ("b", Some("b")), ("m", Some("b")), ("other", None)] {
            assert_eq!(source(namespace, datasets), of, "{namespace}");
            assert_eq!(source(namespace, datasets.into_iter().rev()), of, "{namespace}");
        }
    }
}
