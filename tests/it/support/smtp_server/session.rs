//! The dialogues of the SMTP server of the tests.

use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::stream::Stream;
use super::{Act, Mail, Protection, State};

/// Takes connections until the server is dropped, and their sessions with it.
pub async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let visit = Visit::new(Arc::clone(&state));
        let mut evicted = state.evicted.subscribe();
        let state = Arc::clone(&state);
        sessions.spawn(async move {
            tokio::select! {
                _ = evicted.changed() => {}
                // However the dialogue ends, the test sees it from the other side.
                _ = Session::run(stream, &state, &visit) => {}
            }
        });
    }
}

/// Counts a connection as open while it lives.
struct Visit(Arc<State>, Mutex<bool>);

impl Visit {
    fn new(state: Arc<State>) -> Self {
        state.record.send_modify(|record| {
            record.connections += 1;
            record.open += 1;
            record.most_open = record.most_open.max(record.open);
        });
        Self(state, Mutex::new(true))
    }

    /// The connection is over, before the client is told so.
    fn end(&self) {
        if std::mem::take(&mut *self.1.lock().expect("the flag")) {
            self.0.record.send_modify(|record| record.open -= 1);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.end();
    }
}

/// One dialogue.
struct Session<'a> {
    state: &'a State,
    visit: &'a Visit,
    stream: BufReader<Stream>,
    is_encrypted: bool,
    is_logged_in: bool,
    from: Option<String>,
    to: Vec<String>,
    /// Whether the mail was announced with SMTPUTF8.
    is_wide: bool,
}

/// `None`: the dialogue is over.
type Next = Option<()>;

impl<'a> Session<'a> {
    async fn run(stream: TcpStream, state: &'a State, visit: &'a Visit) -> Next {
        stream.set_nodelay(true).ok()?;
        let is_encrypted = state.options.protection == Protection::Implicit;
        let mut stream = Stream::Plain(stream);
        if is_encrypted {
            stream = stream.encrypt(state).await?;
        }
        let mut session = Session {
            state,
            visit,
            stream: BufReader::new(stream),
            is_encrypted,
            is_logged_in: false,
            from: None,
            to: Vec::new(),
            is_wide: false,
        };
        session.answer("connect", "220 mail.example ready").await?;
        loop {
            let line = session.line().await?;
            session.command(&line).await?;
        }
    }

    async fn command(&mut self, line: &str) -> Next {
        let verb = line.split(' ').next()?.to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let answer = self.capabilities();
                self.answer("EHLO", &answer).await
            }
            "STARTTLS" => self.start_tls().await,
            "AUTH" => self.login(line).await,
            "MAIL" => self.sender(line).await,
            "RCPT" => self.recipient(line).await,
            "DATA" => self.data().await,
            "RSET" => {
                self.forget();
                self.answer("RSET", "250 2.0.0 forgotten").await
            }
            "NOOP" => self.answer("NOOP", "250 2.0.0 here").await,
            "QUIT" => {
                self.visit.end();
                self.answer("QUIT", "221 2.0.0 bye").await?;
                None
            }
            _ => self.write("502 5.5.1 not implemented").await,
        }
    }

    fn capabilities(&self) -> String {
        let options = &self.state.options;
        let more = if options.protection == Protection::StartTls && !self.is_encrypted {
            "250-STARTTLS\r\n".to_owned()
        } else if options.login.is_some() {
            format!("250-AUTH {}\r\n", options.mechanisms)
        } else {
            String::new()
        };
        let wide = if options.smtputf8 {
            "250-8BITMIME\r\n250-SMTPUTF8\r\n"
        } else {
            ""
        };
        format!("250-mail.example\r\n250-ENHANCEDSTATUSCODES\r\n{wide}{more}250 SIZE 1000000")
    }

    async fn start_tls(&mut self) -> Next {
        self.answer("STARTTLS", "220 2.0.0 go on").await?;
        let stream = std::mem::replace(&mut self.stream, BufReader::new(Stream::None));
        self.stream = BufReader::new(stream.into_inner().encrypt(self.state).await?);
        self.is_encrypted = true;
        self.forget();
        Some(())
    }

    async fn login(&mut self, line: &str) -> Next {
        let (user, password) = self.state.options.login?;
        let typed = match line.split(' ').collect::<Vec<_>>()[..] {
            ["AUTH", "PLAIN", initial] => decode(initial),
            ["AUTH", "LOGIN"] => {
                self.write("334 VXNlcm5hbWU6").await?;
                let user = decode(&self.line().await?);
                self.write("334 UGFzc3dvcmQ6").await?;
                format!("\0{user}\0{}", decode(&self.line().await?))
            }
            _ => return self.write("501 5.5.4 which way?").await,
        };
        self.is_logged_in = typed == format!("\0{user}\0{password}");
        let usual = if self.is_logged_in {
            "235 2.7.0 welcome"
        } else {
            "535 5.7.8 wrong"
        };
        self.answer("AUTH", usual).await
    }

    async fn sender(&mut self, line: &str) -> Next {
        let options = &self.state.options;
        if options.protection == Protection::StartTls && !self.is_encrypted {
            return self.write("530 5.7.0 STARTTLS first").await;
        }
        if options.login.is_some() && !self.is_logged_in {
            return self.write("530 5.7.0 who are you?").await;
        }
        if self.from.is_some() {
            return self.write("503 5.5.1 one mail after the other").await;
        }
        let (line, parameters) = line.split_once("> ").unwrap_or((line, ""));
        self.is_wide = match parameters {
            "" => false,
            "BODY=8BITMIME SMTPUTF8" if self.state.options.smtputf8 => true,
            _ => panic!("parameters that are not offered: {parameters}"),
        };
        self.from = bracketed(line);
        self.answer("MAIL", "250 2.1.0 fine").await
    }

    async fn recipient(&mut self, line: &str) -> Next {
        if self.from.is_none() {
            return self.write("503 5.5.1 from whom?").await;
        }
        self.to.extend(bracketed(line));
        self.answer("RCPT", "250 2.1.5 fine").await
    }

    async fn data(&mut self) -> Next {
        if self.to.is_empty() {
            return self.write("503 5.5.1 to whom?").await;
        }
        if !self.answer_or_refuse("DATA", "354 go on").await? {
            return Some(());
        }
        let mut data = String::new();
        loop {
            let line = self.raw_line().await?;
            if line == "." {
                break;
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
            data.push_str("\r\n");
        }
        let mail = Mail {
            from: self.from.clone()?,
            to: self.to.clone(),
            data,
        };
        self.forget();
        self.state
            .record
            .send_modify(|record| record.commands.push(".".to_owned()));
        let is_taken = self
            .peek(".")
            .is_none_or(|act| !matches!(act, Act::Reply(text) | Act::ReplyAndDrop(text) if !text.starts_with('2')));
        if is_taken {
            self.state.mails.send(mail).ok()?;
        }
        self.answer(".", "250 2.0.0 taken").await
    }

    fn forget(&mut self) {
        self.is_wide = false;
        self.from = None;
        self.to.clear();
    }

    /// Answers as the rules want, else as usual.
    async fn answer(&mut self, step: &str, usual: &str) -> Next {
        self.answer_or_refuse(step, usual).await.map(|_| ())
    }

    /// Tells whether the answer was positive.
    async fn answer_or_refuse(&mut self, step: &str, usual: &str) -> Option<bool> {
        match self.take(step) {
            None => {
                self.write(usual).await?;
                Some(true)
            }
            Some(Act::Reply(text)) => {
                self.write(text).await?;
                Some(text.starts_with(['2', '3']))
            }
            Some(Act::ReplyAndDrop(text)) => {
                self.visit.end();
                self.write(text).await?;
                None
            }
            Some(Act::Stall) => {
                // Ends when the client gives up.
                while self.raw_line().await.is_some() {}
                None
            }
            Some(Act::Drop) => None,
        }
    }

    fn peek(&self, step: &str) -> Option<Act> {
        let rules = self.state.rules.lock().expect("the rules");
        rules
            .iter()
            .find(|rule| rule.step == step)
            .map(|rule| rule.act)
    }

    fn take(&self, step: &str) -> Option<Act> {
        let mut rules = self.state.rules.lock().expect("the rules");
        let index = rules.iter().position(|rule| rule.step == step)?;
        let act = rules[index].act;
        if rules[index].is_once {
            rules.remove(index);
        }
        Some(act)
    }

    async fn write(&mut self, text: &str) -> Next {
        let stream = self.stream.get_mut();
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.write_all(b"\r\n").await.ok()?;
        stream.flush().await.ok()
    }

    /// A line of the dialogue, recorded.
    async fn line(&mut self) -> Option<String> {
        let line = self.raw_line().await?;
        self.state
            .record
            .send_modify(|record| record.commands.push(line.clone()));
        Some(line)
    }

    /// A line, which must end with CRLF.
    async fn raw_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await.ok()?;
        let line = String::from_utf8(line).expect("ASCII or UTF-8");
        let is_fine = line.is_ascii() || self.is_wide;
        assert!(is_fine, "ASCII without SMTPUTF8: {line:?}");
        let content = line.strip_suffix("\r\n")?;
        assert!(!content.contains(['\r', '\0']), "stray bytes: {line:?}");
        Some(content.to_owned())
    }
}

fn bracketed(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(":<")?;
    let address = rest.trim_end_matches('>');
    assert!(!address.contains('>'), "no parameters: none are offered");
    Some(address.to_owned())
}

fn decode(text: &str) -> String {
    let bytes = BASE64.decode(text.as_bytes()).expect("base64");
    String::from_utf8(bytes).expect("text")
}
