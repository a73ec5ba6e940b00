//! The SMTP server that takes the mails.

use std::time::Duration;

use otpost_load::sink::Sink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn the_sink_takes_commands_in_one_packet_and_refuses_them_out_of_order() {
    let sink = Sink::start(0, Duration::ZERO).await.unwrap();
    let (first, second) = (
        sink.ledger().expect("a@example.com"),
        sink.ledger().expect("b@example.com"),
    );
    let mut stream = TcpStream::connect(sink.address()).await.unwrap();
    let talk = "ehlo x\r\nRCPT TO:<a@example.com>\r\nDATA\r\nNOOP\r\nVRFY x\r\nMAIL FROM:<>\r\nRSET\r\n\
        RCPT TO:<a@example.com>\r\nMAIL FROM:<x@example.com> BODY=8BITMIME\r\nRCPT TO:nobody\r\n\
        RCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n\r\n..\r\n..765432\r\n.\r\nQUIT\r\n";
    stream.write_all(talk.as_bytes()).await.unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await.unwrap();
    let codes: Vec<&str> = replies.lines().map(|line| &line[..4]).collect();
    assert_eq!(
        codes.join(""),
        "220 250-250-250 503 503 250 502 250 250 503 250 501 250 250 354 250 221 "
    );
    assert_eq!(first.await.unwrap().code.as_deref(), Some("765432"));
    assert_eq!(second.await.unwrap().code.as_deref(), Some("765432"));
    assert_eq!(sink.ledger().counts().mails, 2);
}
