//! `Content-Disposition` with a name a person chose (RFC 6266): safe in every quoting, whatever the title holds.

use http::HeaderValue;

/// Characters of the title that go into a file name.
const NAME_CHARS_MAX: usize = 100;

/// `attachment` under the title, with the ending `.mp4`; ASCII for old clients, UTF-8 for the others.
pub fn attachment(title: &str) -> HeaderValue {
    let name = file_name(title);
    let ascii: String = name.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let text =
        format!("attachment; filename=\"{ascii}.mp4\"; filename*=UTF-8''{}.mp4", percent_encoded(&name));
    HeaderValue::try_from(text).expect("only visible ASCII is left")
}

/// Without what a file system, a shell or a header could read as something else.
fn file_name(title: &str) -> String {
    let plain = |c: char| if c.is_control() || "/\\:*?\"<>|%;".contains(c) { ' ' } else { c };
    let spaced: String = title.chars().map(plain).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let name: String = words.join(" ").chars().take(NAME_CHARS_MAX).collect();
    // No hidden file, and no name that ends where Windows would cut it.
    let name = name.trim_matches(['.', ' ', '-', '~']);
    if name.is_empty() { "video".to_owned() } else { name.to_owned() }
}

/// RFC 8187 `value-chars`.
fn percent_encoded(name: &str) -> String {
    let encode = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn titles_become_file_names() {
        let said = |title: &str| attachment(title).to_str().unwrap().to_owned();
        assert_eq!(said("Clip"), "attachment; filename=\"Clip.mp4\"; filename*=UTF-8''Clip.mp4");
        assert_eq!(
            said("Über \"uns\""),
            "attachment; filename=\"_ber uns.mp4\"; filename*=UTF-8''%C3%9Cber%20uns.mp4"
        );
        assert!(said("../../etc/passwd\r\nX: y").starts_with("attachment; filename=\"etc passwd X y.mp4\""));
        assert!(said("...").contains("\"video.mp4\""));
        assert!(said("").contains("\"video.mp4\""));
    }

    proptest! {
        #[test]
        fn no_title_breaks_the_header(title in any::<String>()) {
            let value = attachment(&title);
            let text = value.to_str().unwrap();
            prop_assert_eq!(text.matches('"').count(), 2);
            prop_assert_eq!(text.matches(';').count(), 2);
            prop_assert!(text.len() < 2000);
        }
    }
}
