//! Text that shows when a byte of it was changed: JSON on the first line, its seal on the second.
//!
//! The seal is a hash under a fixed key, not a secret: it finds damage and files made by hand, not a forger who has
//! read this source.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the line with the seal begins with.
const SEAL: &str = "blake3 ";

/// Gives the seal of some bytes for one kind of file.
pub(crate) fn seal(kind: &str, bytes: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(kind);
    hasher.update(bytes);
    hasher.finalize().to_hex().to_string()
}

/// Writes a value as sealed text.
pub(crate) fn write<T: Serialize>(kind: &str, value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(value)?;
    let seal = seal(kind, &text);
    text.extend_from_slice(format!("\n{SEAL}{seal}\n").as_bytes());
    Ok(text)
}

/// Reads sealed text; every byte has to be as it was written.
pub(crate) fn read<T: DeserializeOwned>(kind: &str, text: &[u8]) -> Result<T, String> {
    let end = text.iter().position(|byte| *byte == b'\n').ok_or("it has no seal")?;
    let (body, rest) = text.split_at(end);
    if rest != format!("\n{SEAL}{}\n", seal(kind, body)).as_bytes() {
        return Err("its seal does not fit its content".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_sealed_text_is_noticed() {
        let text = write("test", &vec!["a", "b"]).unwrap();
        assert_eq!(read::<Vec<String>>("test", &text).unwrap(), ["a", "b"]);
        assert!(read::<Vec<String>>("another kind", &text).is_err());
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read::<Vec<String>>("test", &flipped).is_err(), "bit {bit} went unseen");
        }
    }
}
