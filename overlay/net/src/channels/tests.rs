use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::broadcast;
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use unsigned_varint::encode;
use wattle_types::limits::CHANNEL_FRAME_BYTES_MAX;

use super::*;
use crate::event::Watchers;
use crate::{Event, Misbehaviour};

const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a channel, the events of its node, and how many places are taken there.
struct End {
    sender: ChannelSender,
    receiver: ChannelReceiver,
    events: broadcast::Receiver<Event>,
    places: Places,
}

fn end(pipe: DuplexStream) -> End {
    let (sender, events) = broadcast::channel(8);
    let places = Places::new(Watchers::new(sender));
    let place = places.of_peer(NodeId::from_public_key([1; 32]), ChannelKind::Documents).unwrap();
    let (sender, receiver) = frames::over(Box::new(pipe.compat()), place);
    End { sender, receiver, events, places }
}

/// Two ends of one channel.
fn pair() -> (End, End) {
    let (one, other) = duplex(4096);
    (end(one), end(other))
}

/// One end, and a stream over which a test says what no well-behaved program would.
fn raw() -> (End, DuplexStream) {
    let (one, other) = duplex(4 * CHANNEL_FRAME_BYTES_MAX);
    (end(one), other)
}

fn header(length: usize) -> Vec<u8> {
    encode::usize(length, &mut encode::usize_buffer()).to_vec()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it waits for ever")
}

/// Reads until the end.
async fn all(receiver: &mut ChannelReceiver) -> Vec<Result<Vec<u8>, ReceiveError>> {
    let mut all = Vec::new();
    while let Some(frame) = soon(receiver.next()).await {
        all.push(frame);
        assert!(all.len() < 100, "it never ends");
    }
    assert_eq!(soon(receiver.next()).await, None, "an end is for ever");
    all
}

/// Whether the other end has closed.
async fn is_closed(line: &mut DuplexStream) -> bool {
    let mut rest = Vec::new();
    soon(line.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn frames_cross_both_ways_in_order_whatever_their_size() {
    let (one, other) = pair();
    let sizes = [0, 1, 127, 128, 8191, 8192, 8193, 100_000, CHANNEL_FRAME_BYTES_MAX, 3];
    let frames = |fill: u8| sizes.map(|size| vec![fill; size]);
    let talk = async |mut end: End, mine: u8| {
        let said = frames(mine);
        let send = async {
            for frame in &said {
                end.sender.send(frame).await.unwrap();
            }
            end.sender.send_all(&said).await.unwrap();
        };
        let receive = async {
            let mut heard = Vec::new();
            while heard.len() < 2 * sizes.len() {
                heard.push(end.receiver.next().await.unwrap().unwrap());
            }
            heard
        };
        tokio::join!(send, receive).1
    };
    let (at_one, at_other) = soon(async { tokio::join!(talk(one, 1), talk(other, 2)) }).await;
    assert!(at_one == [frames(2), frames(2)].concat() && at_other == [frames(1), frames(1)].concat());
}

#[tokio::test]
async fn what_was_sent_before_an_end_arrives_before_it() {
    for receiver_first in [false, true] {
        let (mut one, mut other) = pair();
        // More than the stream holds, so that the end itself has to wait for the reader.
        let frame = vec![7; 100_000];
        let cut_off = tokio::time::timeout(Duration::from_millis(1), one.sender.send(&frame)).await;
        assert!(cut_off.is_err(), "nobody reads yet");
        if receiver_first {
            let read = all(&mut other.receiver);
            let send = async {
                one.sender.send_all([&frame; 2]).await.unwrap();
                drop(one.receiver);
                assert_eq!(one.sender.send(b"late").await, Err(SendError::Ended));
            };
            assert_eq!(soon(async { tokio::join!(send, read) }).await.1, vec![Ok(frame); 3]);
        } else {
            drop(one.sender);
            assert_eq!(soon(one.receiver.next()).await, None, "a channel is whole or gone");
            assert_eq!(all(&mut other.receiver).await, [Ok(frame)]);
        }
        assert_eq!(soon(other.sender.send(b"too late")).await, Err(SendError::Ended));
        soon(async {
            while !one.places.woven(1).is_empty() || !other.places.woven(1).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_not_sent_and_the_channel_goes_on() {
    let (mut one, mut other) = pair();
    let huge = vec![0; CHANNEL_FRAME_BYTES_MAX + 1];
    let too_large = SendError::TooLarge { got: huge.len(), max: CHANNEL_FRAME_BYTES_MAX };
    let batch = [b"one".as_slice(), &huge, b"never"];
    assert_eq!(soon(one.sender.send_all(batch)).await, Err(too_large));
    soon(one.sender.send(b"two")).await.unwrap();
    drop(one);
    assert_eq!(all(&mut other.receiver).await, [Ok(b"one".to_vec()), Ok(b"two".to_vec())]);
}

#[tokio::test]
async fn a_frame_that_breaks_a_rule_ends_the_channel_and_is_reported_before_memory_is_set_aside() {
    let max = CHANNEL_FRAME_BYTES_MAX;
    let too_large = |announced| ReceiveError::TooLarge { announced, max };
    let bad = [
        (header(max + 1), too_large(max as u64 + 1)),
        (header(usize::MAX), too_large(u64::MAX)),
        (vec![0xff; 11], ReceiveError::Malformed),
        (vec![0x80, 0x00], ReceiveError::Malformed),
    ];
    for (bytes, error) in bad {
        let (mut end, mut line) = raw();
        line.write_all(&[header(2), b"ok".to_vec(), bytes, vec![9; 64]].concat()).await.unwrap();
        assert_eq!(soon(end.receiver.next()).await, Some(Ok(b"ok".to_vec())));
        assert_eq!(soon(end.receiver.next()).await, Some(Err(error.clone())));
        assert_eq!(end.receiver.held(), 0);
        assert_eq!(soon(end.receiver.next()).await, None);
        assert_eq!(end.sender.send(b"x").await, Err(SendError::Ended));
        assert!(is_closed(&mut line).await);
        let Ok(Event::Misbehaved { what, .. }) = end.events.try_recv() else {
            panic!("nothing was reported")
        };
        assert_eq!(what, Misbehaviour::BadFrame(error.to_string()));
    }
}

#[tokio::test]
async fn a_silent_half_frame_costs_what_was_sent_of_it_and_not_for_ever() {
    let (mut end, mut line) = raw();
    end.receiver.stalling_after(Duration::from_millis(200));
    for (sent, most) in [(0, 0), (10, 10), (5_000, 20_000), (100_000, 220_000)] {
        let bytes = if sent == 0 { header(CHANNEL_FRAME_BYTES_MAX) } else { vec![1; sent] };
        line.write_all(&bytes).await.unwrap();
        // Cancelled, as when something else happens in the lane meanwhile.
        let half = tokio::time::timeout(Duration::from_millis(50), end.receiver.next()).await;
        assert!(half.is_err(), "{half:?}");
        assert!(end.receiver.held() <= most, "{} bytes are held for {sent} more", end.receiver.held());
    }
    let stalled = ReceiveError::Stalled(Duration::from_millis(200));
    assert_eq!(soon(end.receiver.next()).await, Some(Err(stalled)));
    assert_eq!((end.receiver.held(), soon(end.receiver.next()).await), (0, None));
    assert!(is_closed(&mut line).await);
    assert!(end.events.try_recv().is_err(), "a dead path is nobody's fault");
}

#[tokio::test]
async fn a_channel_with_nothing_to_say_does_not_stall() {
    let (mut end, mut line) = raw();
    end.receiver.stalling_after(Duration::from_millis(1));
    let nothing = tokio::time::timeout(Duration::from_millis(100), end.receiver.next()).await;
    assert!(nothing.is_err());
    line.write_all(&[header(2), b"hi".to_vec()].concat()).await.unwrap();
    assert_eq!(soon(end.receiver.next()).await, Some(Ok(b"hi".to_vec())));
    // An end between two frames is one in good order, in the middle of one it is not.
    line.write_all(&header(3)).await.unwrap();
    drop(line);
    assert_eq!(all(&mut end.receiver).await, [Err(ReceiveError::Cut)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn frames_are_read_alike_however_the_bytes_are_cut(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        cuts in prop::collection::vec(1..200_usize, 0..20),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| [header(frame.len()), frame.clone()].concat()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = runtime.block_on(async {
            let (mut end, mut line) = raw();
            let write = async {
                let mut rest = bytes.as_slice();
                for cut in cuts {
                    let (part, after) = rest.split_at(cut.min(rest.len()));
                    line.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = after;
                }
                line.write_all(rest).await.unwrap();
                drop(line);
            };
            tokio::join!(write, all(&mut end.receiver)).1
        });
        prop_assert_eq!(read, frames.into_iter().map(Ok).collect::<Vec<_>>());
    }
}
