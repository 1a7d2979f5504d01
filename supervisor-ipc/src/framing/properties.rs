//! The decoders against bytes that nobody would write, however they are split. The seed of a run is taken from
//! `PROPTEST_RNG_SEED`.

use proptest::prelude::*;

use super::*;

const FRAME_MAX: usize = 300;
const JUNK_MAX: usize = 100;

/// Frames, and why there are no more if there are not.
type Read = (Vec<Bytes>, Option<String>);

/// Reads pieces as a connection would, and checks on the way that nothing is kept that no limit bounds.
fn read<'a>(kind: FramingKind, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut framing = Framing::new(kind, FRAME_MAX, JUNK_MAX);
    let mut source = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        source.extend_from_slice(piece);
        loop {
            match framing.decode(&mut source) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_MAX);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
        let most = FRAME_MAX + 2 * HEADER_MAX + piece.len();
        assert!(source.len() <= most, "{} bytes are kept", source.len());
    }
    (frames, None)
}

fn kinds() -> impl Strategy<Value = FramingKind> {
    prop_oneof![Just(FramingKind::Length), Just(FramingKind::Lsp), Just(FramingKind::Mcp)]
}

/// Bytes with a liking for what means something to a decoder.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        2 => prop_oneof![
            Just(b"Content-Length: ".to_vec()),
            Just(b"content-length:5\r\n\r\nhello".to_vec()),
            Just(b"Content-Length: 99999999999999999999\r\n\r\n".to_vec()),
            Just(b"Content-Length: -1\r\n\r\n".to_vec()),
            Just(b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_vec()),
            Just(b"Content-Type: x\r\n".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(vec![0, 0, 0, 3, b'a', b'b', b'c']),
            Just(vec![0, 0, 0, 0]),
            Just(vec![0xff; 4]),
            Just(vec![b'x'; 400]),
        ],
        1 => (0_usize..400).prop_map(|n| format!("Content-Length: {n}\r\n\r\n").into_bytes()),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Cuts bytes at these places.
fn split<'a>(bytes: &'a [u8], at: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = at.iter().map(|at| at % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_the_same_frames_however_they_are_split(
        kind in kinds(),
        bytes in hostile(),
        at in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let one_by_one = read(kind, bytes.chunks(1));
        let split = read(kind, split(&bytes, &at).into_iter());
        let whole = read(kind, std::iter::once(bytes.as_slice()));
        prop_assert_eq!(&one_by_one.0, &split.0);
        prop_assert_eq!(&split.0, &whole.0);
        prop_assert_eq!(split.1.is_some(), whole.1.is_some(), "{:?} {:?}", split.1, whole.1);
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        kind in kinds(),
        contents in prop::collection::vec("[ -~]{1,60}", 0..10),
        at in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let contents: Vec<String> = contents.into_iter().map(|text| format!("{{{text}}}")).collect();
        let mut framing = Framing::new(kind, FRAME_MAX, JUNK_MAX);
        let mut bytes = BytesMut::new();
        for content in &contents {
            framing.encode(Bytes::from(content.clone()), &mut bytes).unwrap();
        }
        let (frames, failed) = read(kind, split(&bytes, &at).into_iter());
        prop_assert_eq!(failed, None);
        prop_assert_eq!(frames, contents.into_iter().map(Bytes::from).collect::<Vec<_>>());
    }
}
