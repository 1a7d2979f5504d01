//! Messages with a `Content-Length` header.

use std::io::{self, BufRead, Read as _, Write};

use serde_json::Value;

/// Largest message body that is read, in bytes; a larger one ends the connection before anything is allocated.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest header block, in bytes.
const HEAD_BYTES_MAX: u64 = 8 * 1024;

/// Reads one message body; nothing at a clean end of the input.
pub(super) fn read(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = read_head(input)? else {
        return Ok(None);
    };
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(body))
}

fn read_head(input: &mut impl BufRead) -> io::Result<Option<usize>> {
    let mut head = input.by_ref().take(HEAD_BYTES_MAX);
    let mut length = None;
    let mut first = true;
    loop {
        let mut line = String::new();
        let read = head.read_line(&mut line)?;
        if read == 0 && first {
            return Ok(None);
        }
        if !line.ends_with('\n') {
            return Err(invalid("a header that does not end"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        first = false;
        let Some((name, value)) = line.split_once(':') else {
            return Err(invalid("a header line without a colon"));
        };
        if name.trim().eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    match length {
        Some(length) if length <= BODY_BYTES_MAX => Ok(Some(length)),
        Some(_) => Err(invalid("a message larger than 32 MiB")),
        None => Err(invalid("a header without a usable Content-Length")),
    }
}

/// Writes one message and flushes it.
pub(super) fn write(output: &mut impl Write, message: &Value) -> io::Result<()> {
    let body = message.to_string();
    write!(output, "Content-Length: {}\r\n\r\n{body}", body.len())?;
    output.flush()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_being_written_and_read_in_pieces() {
        let message = serde_json::json!({ "text": "é\r\n" });
        let mut bytes = Vec::new();
        write(&mut bytes, &message).unwrap();
        // A buffer of one byte is the worst a pipe can do.
        let mut input = io::BufReader::with_capacity(1, &bytes[..]);
        let body = read(&mut input).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), message);
        assert!(read(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_header_without_end_or_with_a_huge_length_is_refused_without_allocating() {
        let endless = vec![b'a'; 1 << 20];
        assert!(read(&mut &endless[..]).is_err());
        assert!(read(&mut &b"Content-Length: 99999999999\r\n\r\n"[..]).is_err());
        assert!(read(&mut &b"Content-Type: x\r\n\r\n"[..]).is_err());
        assert!(read(&mut &b"Content-Length: 5\r\n\r\nabc"[..]).is_err());
    }
}
