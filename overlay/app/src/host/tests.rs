use std::time::Duration;

use wattle_types::SecretKey;

use super::*;

/// Says how much it was asked.
struct Echo(&'static str);

impl App for Echo {
    fn id(&self) -> AppId {
        AppId(self.0)
    }

    fn kind(&self) -> &'static str {
        self.0
    }

    fn handle(&mut self, _event: AppEvent, _cx: &mut Context<'_>) {}

    fn request(&mut self, request: Request, cx: &mut Context<'_>) {
        cx.reply(request.id, Ok(request.body.len().to_be_bytes().to_vec()));
    }
}

const SMALL: AppId = AppId("small/1");
const LARGE: AppId = AppId("large/1");

fn host() -> Host {
    let started = UnixTime::from_millis(1_000_000);
    let me = SecretKey::from_bytes(&[1; 32]).node_id();
    let config = Config { me, seed: [0; 32], started, quota: Quota { bytes_per_second: 1000 } };
    let mut host = Host::new(config, vec![Box::new(Echo(SMALL.0))]);
    host.register(Box::new(Echo(LARGE.0)), Quota { bytes_per_second: 1 << 20 });
    host
}

/// Asks with so many bytes; whether it was taken.
fn ask(host: &mut Host, after: Duration, app: AppId, bytes: usize) -> Result<(), RejectCode> {
    let mut out = Outbox::new();
    let input = Input::Request { id: RequestId(1), app, body: vec![0; bytes] };
    host.handle(Time::ZERO.after(after), input, &mut out);
    match out.drain().next().unwrap() {
        Output::Reply { answer, .. } => answer.map(drop).map_err(|reject| reject.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_an_app_for_more_than_its_quota_is_told_to_wait() {
    let mut host = host();
    assert_eq!(ask(&mut host, Duration::ZERO, SMALL, 1500), Ok(()));
    assert_eq!(ask(&mut host, Duration::ZERO, SMALL, 1500), Err(RejectCode::Later));
    assert_eq!(ask(&mut host, Duration::ZERO, LARGE, 1500), Ok(()), "each app has its own");
    assert_eq!(ask(&mut host, Duration::from_millis(1100), SMALL, 1500), Ok(()));
}

#[test]
fn what_is_more_than_a_quota_by_itself_is_taken_after_a_rest() {
    let mut host = host();
    assert_eq!(ask(&mut host, Duration::ZERO, SMALL, 50_000), Ok(()));
    assert_eq!(ask(&mut host, Duration::from_secs(1), SMALL, 50_000), Err(RejectCode::Later));
    assert_eq!(ask(&mut host, Duration::from_secs(3), SMALL, 50_000), Ok(()));
}
