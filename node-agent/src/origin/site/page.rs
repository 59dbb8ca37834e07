//! What the page of an index links to.

use crate::origin::web::percent::decode;
use hearth_core::manifest::SkipReason;
use html5gum::{Token, Tokenizer};
use reqwest::Url;

/// A link to something below a page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// A file, by its path below the page's folder.
    File(String),
    /// The page of a folder below, by its path, which ends in `/`.
    Folder(String),
    /// What cannot be either.
    Skipped(String, SkipReason),
}

/// The links of a page at `url` to what lies below it; others are of no interest, such as
/// those to the folder above or to the same page in another order.
pub(super) fn links(url: &Url, body: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for Ok(token) in Tokenizer::new(body) {
        let Token::StartTag(tag) = token else { continue };
        if tag.name.as_slice() != b"a" {
            continue;
        }
        let Some(href) = tag.attributes.get(b"href".as_slice()) else { continue };
        let Ok(href) = std::str::from_utf8(href) else { continue };
        links.extend(link(url, href));
    }
    links.sort_unstable();
    links.dedup();
    links
}

/// The link of a reference on the page at `url`.
pub(super) fn link(url: &Url, href: &str) -> Option<Link> {
    let target = url.join(href.trim()).ok()?;
    if target.origin() != url.origin() || target.query().is_some() || target.fragment().is_some() {
        return None;
    }
    let below = target.path().strip_prefix(url.path()).filter(|below| !below.is_empty())?;
    // A slash that is encoded is part of a name, which no file of a tree can have.
    let of_one_name = |segment: &str| decode(segment).contains(&b'/');
    let path = decode(below);
    Some(match std::str::from_utf8(&path) {
        Err(_) => Link::Skipped(String::from_utf8_lossy(&path).into_owned(), SkipReason::NotUtf8),
        Ok(path) if below.split('/').any(of_one_name) => Link::Skipped(path.to_owned(), SkipReason::NotAFile),
        Ok(path) if path.ends_with('/') => Link::Folder(path.to_owned()),
        Ok(path) => Link::File(path.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(body: &str) -> Vec<Link> {
        links(&Url::parse("http://h/data/").unwrap(), body)
    }

    fn file(path: &str) -> Link {
        Link::File(path.to_owned())
    }

    #[test]
    fn pages_are_read_as_nginx_writes_them() {
        let page = "<html>\r\n<head><title>Index of /data/</title></head>\r\n<body>\r\n<h1>Index of /data/</h1><hr><pre><a href=\"../\">../</a>\r\n\
            <a href=\"a%20b%2Bc%2520%26%3C%3E%22%27\">a b+c%20&amp;&lt;&gt;\"'</a>   26-Nov-2026 16:41      14\r\n\
            <a href=\"sub/\">sub/</a>   26-Nov-2026 16:41       -\r\n</pre><hr></body>\r\n</html>\r\n";
        assert_eq!(of(page), [file("a b+c%20&<>\"'"), Link::Folder("sub/".into())]);
    }

    #[test]
    fn pages_are_read_as_apache_writes_them() {
        let page = r#"<!DOCTYPE HTML><table><tr><th><a href="?C=N;O=D">Name</a></th></tr>
            <tr><td><a href="/">Parent Directory</a></td></tr>
            <tr><td><img src="/icons/unknown.gif" alt="[   ]"></td><td><a href="x&amp;y.bin">x&amp;y.bin</a></td><td align="right">1.2K</td></tr>
            <!-- <a href="no.bin"> --></table>"#;
        assert_eq!(of(page), [file("x&y.bin")]);
    }

    #[test]
    fn only_what_lies_below_is_taken() {
        for (href, expected) in [
            ("x", Some(file("x"))),
            ("/data/x", Some(file("x"))),
            ("http://h:80/data/d/x", Some(file("d/x"))),
            ("HTTP://h/data/./x", Some(file("x"))),
            ("../x", None),
            ("%2e%2e/x", None),
            ("/database", None),
            ("http://other/data/x", None),
            ("https://h/data/x", None),
            ("mailto:a@h", None),
            ("x?y", None),
            ("#top", None),
            ("", None),
            ("a%2Fb", Some(Link::Skipped("a/b".into(), SkipReason::NotAFile))),
            ("%ff", Some(Link::Skipped("\u{fffd}".into(), SkipReason::NotUtf8))),
        ] {
            assert_eq!(link(&Url::parse("http://h/data/").unwrap(), href), expected, "{href}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_link_to_elsewhere(body in "(<a href=\"?|\\PC{0,10}|\\.\\./|%2e|//|\"?>){0,20}") {
            for link in of(&body) {
                if let Link::File(path) | Link::Folder(path) = link {
                    prop_assert!(!path.split('/').any(|segment| segment == ".."), "{}", path);
                }
            }
        }
    }
}
