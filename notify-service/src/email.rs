//! E-mail: one plain text for all that waits of a room, handed to the operator's SMTP server (RFC 5321).

use std::{error::Error as _, fmt::Write as _, net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use chrono::DateTime;
use chrono_tz::Tz;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        client::{Certificate, Tls, TlsParameters},
        extension::ClientId,
    },
};
use service_kit::{
    env::{self, Get, Invalid},
    fault::Fault,
};
use url::{Host, Url};

use crate::{
    EmailConfig,
    attempt::{self, DISTRUSTED, Tried},
    decide::{DIRECT, Due},
    payload::cut,
    settings::Privacy,
};

/// Longest address (RFC 5321, section 4.5.3.1.3, without its brackets).
const MAX_ADDRESS: usize = 254;
/// Bytes of a name in a subject.
const MAX_NAME: usize = 120;
/// Messages that a mail tells the text of; of more it tells the number.
const TOLD: usize = 50;
/// Bytes of one message's text.
const TEXT: usize = 2048;
/// Answers that blame the login of this deployment, not the mail (RFC 4954).
const LOGIN: [u16; 4] = [530, 534, 535, 538];

/// An SMTP server that takes mail for everybody.
pub(crate) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// Scheme, host and port, without login.
    url: Url,
    timeout: Duration,
}

impl Email {
    /// By this server. `timeout` bounds a whole mail; `roots` (PEM) are trusted beside the authorities of the system.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub(crate) fn new(config: &EmailConfig, timeout: Duration, roots: &str) -> anyhow::Result<Self> {
        let from: Mailbox = config.from.parse().context("PARLANCE_EMAIL_FROM: is no mailbox")?;
        // The parser's error may repeat the URL, and with it the password.
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&config.url);
        let builder = builder.ok().context("PARLANCE_SMTP_URL: cannot be used")?;
        let mut url = Url::parse(&config.url).ok().context("PARLANCE_SMTP_URL: is no URL")?;
        let builder = match tls(&url, roots)? {
            Some(tls) => builder.tls(tls),
            None => builder,
        };
        let transport =
            builder.timeout(Some(timeout)).hello_name(ClientId::Domain(from.email.domain().to_owned())).build();
        url.set_query(None);
        url.set_path("");
        let named = url.set_username("").and_then(|()| url.set_password(None));
        anyhow::ensure!(named.is_ok(), "PARLANCE_SMTP_URL: names no host");
        Ok(Self { transport, from, url, timeout })
    }

    /// Where all mail goes.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Sends one mail that tells of these messages of one room to one device, the oldest first.
    pub(crate) async fn send(&self, messages: &[Due]) -> Tried {
        let mail = match self.mail(messages) {
            Ok(mail) => mail,
            Err(_) => return Tried::Refused("the mail could not be written".to_owned()),
        };
        match tokio::time::timeout(self.timeout, self.transport.send(mail)).await {
            Ok(Ok(answer)) => Tried::Accepted(format!("answered {}", answer.code())),
            Ok(Err(error)) => judge(&error),
            Err(_) => Tried::Later("no answer in time".to_owned(), None),
        }
    }

    fn mail(&self, messages: &[Due]) -> anyhow::Result<Message> {
        let first = messages.first().context("a mail about nothing")?;
        let to: Address = first.target.as_deref().unwrap_or_default().parse()?;
        let last = messages.last().map(|last| last.seq).unwrap_or_default();
        let id = format!("<{}.{}.{last}@{}>", first.room_id, first.device_id, self.from.email.domain());
        let mut mail = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject(messages))
            .message_id(Some(id))
            .header(ContentType::TEXT_PLAIN)
            .body(text(messages))?;
        // So that nobody's absence note comes back (RFC 3834).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(mail)
    }
}

/// Reads the settings; none without a server.
///
/// # Errors
/// When one cannot be used.
pub(crate) fn config(get: &impl Get) -> Result<Option<EmailConfig>, Invalid> {
    let Some(url) = env::optional::<String>(get, "PARLANCE_SMTP_URL")? else { return Ok(None) };
    let refuse = |problem: &str| Err(Invalid::new("PARLANCE_SMTP_URL", problem));
    let Ok(read) = Url::parse(&url) else { return refuse("is no URL") };
    let near = match read.host() {
        // Of a scheme that is none of the web's, an address of IPv4 counts as a name.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return refuse("names no host"),
    };
    let secure = match read.scheme() {
        "smtps" => true,
        "smtp" => read.query_pairs().any(|(name, value)| name == "tls" && value == "required"),
        _ => return refuse("is neither smtp: nor smtps:"),
    };
    if read.password().is_some() && !(secure || near) {
        return refuse("would send the password in the clear: use smtps: or ?tls=required");
    }
    let from: String = env::value(get, "PARLANCE_EMAIL_FROM")?;
    let config = EmailConfig { url, from };
    match Email::new(&config, Duration::ZERO, "") {
        Ok(_) => Ok(Some(config)),
        Err(error) => Err(Invalid::new("PARLANCE_EMAIL_FROM", format!("{error:#}"))),
    }
}

/// An address, in the one way in which it is stored.
///
/// # Errors
/// `bad_request`, naming the field.
pub(crate) fn target(address: &str) -> Result<String, Fault> {
    let plain =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'(' | b')' | b',' | b':' | b';' | b'<' | b'>' | b'\\');
    let read = address.parse::<Address>().ok();
    match read.filter(|_| address.len() <= MAX_ADDRESS && address.bytes().all(plain)) {
        Some(read) => Ok(format!("{}@{}", read.user(), read.domain().to_ascii_lowercase())),
        None => Err(Fault::bad_request("address: must be an e-mail address")),
    }
}

/// What `PARLANCE_SMTP_URL` asks for, with further roots; nothing where its own reading is enough.
fn tls(url: &Url, roots: &str) -> anyhow::Result<Option<Tls>> {
    if roots.is_empty() {
        return Ok(None);
    }
    let host = url.host_str().context("PARLANCE_SMTP_URL: names no host")?;
    let root = Certificate::from_pem(roots.as_bytes())?;
    let parameters = TlsParameters::builder(host.to_owned()).add_root_certificate(root).build()?;
    let asked = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
    Ok(match (url.scheme(), asked.as_deref()) {
        ("smtps", _) => Some(Tls::Wrapper(parameters)),
        (_, Some("required")) => Some(Tls::Required(parameters)),
        (_, Some("opportunistic")) => Some(Tls::Opportunistic(parameters)),
        _ => None,
    })
}

fn judge(error: &smtp::Error) -> Tried {
    let Some(code) = error.status() else {
        let no_tls = error.source().is_some_and(|text| text.to_string().contains("STARTTLS"));
        let said = match () {
            () if attempt::distrusts(error) => DISTRUSTED,
            () if no_tls => "the server offers no STARTTLS",
            () if error.is_timeout() => "no answer in time",
            () => "the connection failed",
        };
        return Tried::Later(said.to_owned(), None);
    };
    let said = format!("answered {code}");
    let unknown = error.source().is_some_and(|text| text.to_string().contains("5.1.1"));
    match u16::from(code) {
        550 if unknown => Tried::Gone(format!("{said} 5.1.1")),
        code if LOGIN.contains(&code) => Tried::Later(said, None),
        _ if error.is_permanent() => Tried::Refused(said),
        _ => Tried::Later(said, None),
    }
}

fn subject(messages: &[Due]) -> String {
    let count = match messages.len() {
        1 => "1 new message".to_owned(),
        number => format!("{number} new messages"),
    };
    match messages.last() {
        Some(last) if last.privacy.unwrap_or_default() != Privacy::Nothing => format!("{}: {count}", place(last)),
        _ => format!("Parlance: {count}"),
    }
}

/// The room, or in a direct one the other person, as part of a line.
fn place(due: &Due) -> String {
    let sender = due.sender_name.as_deref().unwrap_or_default();
    let name = due.room_name.as_deref().filter(|_| due.room_kind != Some(DIRECT)).unwrap_or(sender);
    line(name)
}

/// A name as part of one line: nothing in it ends the line, whatever it is made of.
fn line(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(name.trim(), MAX_NAME)
}

fn text(messages: &[Due]) -> String {
    let privacy = messages.last().and_then(|last| last.privacy).unwrap_or_default();
    let untold = messages.len().saturating_sub(TOLD);
    let mut text = String::new();
    // Writing to a text cannot fail.
    if privacy == Privacy::Nothing {
        let _ = writeln!(text, "New messages wait for you: {}.", messages.len());
        return text;
    }
    if untold > 0 {
        let _ = writeln!(text, "({untold} earlier)\n");
    }
    for due in &messages[untold..] {
        let sender = line(due.sender_name.as_deref().unwrap_or_default());
        let said = due.text.as_deref().filter(|_| privacy == Privacy::Full).unwrap_or("New message");
        let said = if due.invitation { "added you" } else { said };
        let _ = writeln!(text, "{} {sender}: {}\n", time(due), cut(said, TEXT));
    }
    text
}

/// When a message was sent, by the clock of its receiver when that is known.
fn time(due: &Due) -> String {
    let zone = due.time_zone.as_deref().and_then(|zone| zone.parse::<Tz>().ok()).unwrap_or(Tz::UTC);
    let at = DateTime::from_timestamp_millis(due.sent_at.unwrap_or_default()).unwrap_or_default();
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z").to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn email() -> Email {
        let config = EmailConfig { url: "smtp://127.0.0.1:25".to_owned(), from: "Chat <chat@example.org>".to_owned() };
        Email::new(&config, Duration::from_secs(1), "").unwrap()
    }

    fn due(seq: i64, text: &str) -> Due {
        Due {
            seq,
            target: Some("bob@example.org".to_owned()),
            room_kind: Some(2),
            room_name: Some("team".to_owned()),
            sender_name: Some("Maja".to_owned()),
            text: Some(text.to_owned()),
            sent_at: Some(1_764_000_000_000),
            ..Due::default()
        }
    }

    fn written(messages: &[Due]) -> String {
        String::from_utf8(email().mail(messages).unwrap().formatted()).unwrap()
    }

    #[test]
    fn names_never_end_a_header() {
        let name = "x\r\nBcc: eve@example.org\r\n\r\nbody".to_owned();
        for due in [
            Due { room_name: Some(name.clone()), ..due(1, "hi") },
            Due { room_kind: Some(DIRECT), sender_name: Some(name.clone()), ..due(1, "hi") },
        ] {
            let mail = written(&[due]);
            let headers = mail.split("\r\n\r\n").next().unwrap();
            assert!(!headers.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{headers}");
            assert!(headers.contains("\r\nTo: bob@example.org\r\n"), "{headers}");
        }
    }

    #[test]
    fn a_mail_tells_the_newest_and_how_many_more_there_are() {
        let messages: Vec<Due> = (1..=60).map(|seq| due(seq, &format!("text {seq}."))).collect();
        let text = text(&messages);
        assert!(text.starts_with("(10 earlier)") && !text.contains("text 10.") && text.contains("text 11."));
        assert!(text.contains("2025-11-24 16:00 UTC Maja: text 60."), "{text}");
        assert_eq!(subject(&messages), "team: 60 new messages");
        let berlin = Due { time_zone: Some("Europe/Berlin".to_owned()), ..due(1, "x") };
        assert_eq!(time(&berlin), "2025-11-24 17:00 CET");
    }

    #[test]
    fn privacy_hides_the_text_and_then_who_and_where() {
        let of = |privacy| {
            let messages = [Due { privacy: Some(privacy), ..due(1, "secret") }];
            format!("{} {}", subject(&messages), text(&messages))
        };
        assert!(of(Privacy::Full).contains("secret"));
        let sender = of(Privacy::Sender);
        assert!(sender.contains("team") && sender.contains("Maja") && !sender.contains("secret"), "{sender}");
        let nothing = of(Privacy::Nothing);
        assert!(!["team", "Maja", "secret"].iter().any(|word| nothing.contains(word)), "{nothing}");
    }

    #[test]
    fn the_form_of_an_address_is_checked() {
        assert_eq!(target("Bob.x+y@Example.ORG").unwrap(), "Bob.x+y@example.org");
        let long = format!("{}@example.org", "x".repeat(250));
        for bad in
            ["", "bob", "bob@", "@x.org", "a b@x.org", "bob@x.org\r\nBcc: e@x.org", "<bob@x.org>", "\"a\"@x.org", &long]
        {
            assert!(target(bad).unwrap_err().message.starts_with("address: "), "{bad}");
        }
    }

    #[test]
    fn a_password_goes_nowhere_in_the_clear() {
        let read = |url: &str, from: &str| {
            let given = [("PARLANCE_SMTP_URL", url), ("PARLANCE_EMAIL_FROM", from)];
            config(
                &given.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect::<HashMap<_, _>>(),
            )
        };
        assert!(read("", "").unwrap().is_none(), "off without a server");
        for url in
            ["smtp://mail.example.org:25", "smtp://u:p@127.0.0.1:25", "smtp://u:p@[::1]:25", "smtp://u:p@localhost"]
        {
            assert!(read(url, "chat@example.org").unwrap().is_some(), "{url}");
        }
        for (url, from) in [
            ("smtp://u:secret@mail.example.org:25", "chat@example.org"),
            ("smtp://u:secret@mail.example.org:25?tls=opportunistic", "chat@example.org"),
            ("https://u:secret@mail.example.org", "chat@example.org"),
            ("secret", "chat@example.org"),
            ("smtp://mail.example.org", "secret"),
            ("smtp://mail.example.org", ""),
        ] {
            let error = read(url, from).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
