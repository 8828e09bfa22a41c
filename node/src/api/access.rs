//! Who may use the API over TCP: tokens, one-time login codes and browser sessions.
//!
//! A secret is 32 random bytes and is never kept, only its BLAKE3 hash: a copy of the data directory lets
//! nobody in. Every check compares with all hashes in constant time.
//!
//! | secret | where its hash is | lives |
//! | --- | --- | --- |
//! | token of `token new` | the tokens table | until its expiry or `token revoke` |
//! | the admin token in `api.token` (0600) | memory | until the node stops |
//! | login code | memory | 60 s, once |
//! | session cookie | the tokens table | 12 h, or until `token revoke` |
//!
//! A session outlives the process, because a page goes on by itself after a restart of its node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use wattle_store::{CommitError, Failure, Store};
use wattle_types::{ContentHash, Table, UnixTime, Write, cbor};

use super::documents::{Role, TokenRow};
use crate::clock::timestamp;

/// How long a login code works: a person opens the link at once.
pub const LOGIN_CODE_LIVES: Duration = Duration::from_secs(60);
/// How long a browser stays signed in: a working day.
pub const SESSION_LIVES: Duration = Duration::from_secs(12 * 60 * 60);
/// Tokens kept. Every request compares with each.
pub const TOKENS_MAX: usize = 256;
/// Codes kept, and sessions; beyond it the one that ends first gives way.
const SESSIONS_MAX: usize = 64;
/// Longest secret that is looked at: 32 bytes are 43 characters.
const SECRET_CHARS_MAX: usize = 64;

type Hash = [u8; 32];

/// What is known of a token besides its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TokenEntry {
    role: Role,
    created: UnixTime,
    expires: Option<UnixTime>,
    label: Option<String>,
    /// It came as a cookie, and works as nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    session: bool,
}

/// A secret that was just made, and how to name it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its public name.
    pub id: String,
    /// The secret, shown this once.
    pub secret: String,
}

/// Why a token was not made or revoked. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No token has that id.
    #[error("there is no token `{0}`")]
    NotFound(String),
    /// There are too many.
    #[error("there are {TOKENS_MAX} tokens already: revoke one first")]
    TooMany,
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    NoRandomness(String),
    /// The disk did not take it.
    #[error(transparent)]
    Store(#[from] CommitError),
}

#[derive(Default)]
struct Memory {
    tokens: BTreeMap<Hash, TokenEntry>,
    codes: BTreeMap<Hash, UnixTime>,
}

/// Who may use the API.
pub struct Access {
    memory: Mutex<Memory>,
    store: Arc<Store>,
}

impl Access {
    /// Reads the tokens from disk. A row that does not decode lets nobody in.
    ///
    /// # Errors
    /// The disk's failure.
    pub fn open(store: Arc<Store>) -> Result<Self, Failure> {
        let tokens = store
            .scan(Table::Tokens)?
            .into_iter()
            .filter_map(|(key, value)| Some((Hash::try_from(key).ok()?, cbor::decode(&value, 4096).ok()?)))
            .collect();
        Ok(Self { memory: Mutex::new(Memory { tokens, ..Memory::default() }), store })
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Every change of the maps is a single call, so a panic elsewhere leaves them whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an admin token that lives as long as this process.
    ///
    /// # Errors
    /// [`TokenError::NoRandomness`].
    pub fn admin_token(&self, now: UnixTime) -> Result<NewToken, TokenError> {
        let (token, hash) = new_secret()?;
        let label = Some("api.token".to_owned());
        let entry = TokenEntry { role: Role::Admin, created: now, expires: None, label, session: false };
        self.lock().tokens.insert(hash, entry);
        Ok(token)
    }

    /// Makes a token that outlives this process; it works once it is on disk.
    ///
    /// # Errors
    /// [`TokenError`]; then no token was made.
    pub async fn new_token(
        &self,
        role: Role,
        label: Option<String>,
        lives: Option<Duration>,
        now: UnixTime,
    ) -> Result<NewToken, TokenError> {
        if self.lock().tokens.values().filter(|entry| !entry.session).count() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let (token, hash) = new_secret()?;
        let expires = lives.map(|span| now.after(span));
        let entry = TokenEntry { role, created: now, expires, label, session: false };
        self.store.commit(vec![put(&hash, &entry)]).await?;
        self.lock().tokens.insert(hash, entry);
        Ok(token)
    }

    /// Revokes a token. It works no more from now on, even when the disk fails.
    ///
    /// # Errors
    /// [`TokenError::NotFound`] or the disk's failure.
    pub async fn revoke(&self, id: &str) -> Result<(), TokenError> {
        let hash = {
            let mut memory = self.lock();
            let hash = memory.tokens.keys().find(|hash| id_of(hash) == id).copied();
            let hash = hash.ok_or_else(|| TokenError::NotFound(id.to_owned()))?;
            memory.tokens.remove(&hash);
            hash
        };
        Ok(self.store.commit(vec![remove(&hash)]).await?)
    }

    /// The tokens, without their secrets.
    #[must_use]
    pub fn tokens(&self, now: UnixTime) -> Vec<TokenRow> {
        let row = |(hash, entry): (&Hash, &TokenEntry)| TokenRow {
            id: id_of(hash),
            role: entry.role,
            label: entry.label.clone(),
            created: timestamp(entry.created),
            expires: entry.expires.map(timestamp),
            expired: entry.expires.is_some_and(|expires| expires <= now),
        };
        self.lock().tokens.iter().map(row).collect()
    }

    /// What the bearer of this token may do; `None` when it lets nobody in.
    #[must_use]
    pub fn token_role(&self, secret: &str, now: UnixTime) -> Option<Role> {
        self.role(secret, false, now)
    }

    /// What the browser with this session cookie may do.
    #[must_use]
    pub fn session_role(&self, secret: &str, now: UnixTime) -> Option<Role> {
        self.role(secret, true, now)
    }

    fn role(&self, secret: &str, session: bool, now: UnixTime) -> Option<Role> {
        let hash = hash_of(secret)?;
        let memory = self.lock();
        let found = find(&memory.tokens, &hash).filter(|entry| entry.session == session)?;
        found.expires.is_none_or(|expires| expires > now).then_some(found.role)
    }

    /// Makes a login code.
    ///
    /// # Errors
    /// [`TokenError::NoRandomness`].
    pub fn login_code(&self, now: UnixTime) -> Result<(String, UnixTime), TokenError> {
        let (token, hash) = new_secret()?;
        let expires = now.after(LOGIN_CODE_LIVES);
        let mut memory = self.lock();
        memory.codes.retain(|_, expires| *expires > now);
        make_room(&mut memory.codes, |expires| *expires);
        memory.codes.insert(hash, expires);
        Ok((token.secret, expires))
    }

    /// Exchanges a login code for a session, once: the secret of its cookie and its end. It works once it is on
    /// disk.
    ///
    /// # Errors
    /// [`TokenError::NotFound`] for a code that was used, is too old, or never was; else as [`Self::new_token`].
    pub async fn sign_in(&self, code: &str, now: UnixTime) -> Result<(String, UnixTime), TokenError> {
        self.use_code(code, now).ok_or_else(|| TokenError::NotFound("login code".to_owned()))?;
        let (session, hash) = new_secret()?;
        let ends = now.after(SESSION_LIVES);
        let label = Some("browser".to_owned());
        let entry = TokenEntry { role: Role::Admin, created: now, expires: Some(ends), label, session: true };
        let mut writes: Vec<Write> = self.end_sessions(now).iter().map(remove).collect();
        writes.push(put(&hash, &entry));
        self.store.commit(writes).await?;
        self.lock().tokens.insert(hash, entry);
        Ok((session.secret, ends))
    }

    fn use_code(&self, code: &str, now: UnixTime) -> Option<()> {
        let hash = hash_of(code)?;
        let mut memory = self.lock();
        let expires = find(&memory.codes, &hash).copied()?;
        memory.codes.remove(&hash);
        (expires > now).then_some(())
    }

    /// Makes room for one more session: those that are over, and beyond the cap the one that ends first.
    fn end_sessions(&self, now: UnixTime) -> Vec<Hash> {
        let mut memory = self.lock();
        let sessions = memory.tokens.iter().filter(|(_, entry)| entry.session);
        let mut ends: Vec<(Option<UnixTime>, Hash)> =
            sessions.map(|(hash, entry)| (entry.expires, *hash)).collect();
        ends.sort_unstable();
        let over = ends.partition_point(|(ends, _)| ends.is_none_or(|ends| ends <= now));
        let beyond = ends.len().saturating_sub(SESSIONS_MAX - 1);
        let gone: Vec<Hash> = ends.into_iter().take(over.max(beyond)).map(|(_, hash)| hash).collect();
        for hash in &gone {
            memory.tokens.remove(hash);
        }
        gone
    }
}

fn put(hash: &Hash, entry: &TokenEntry) -> Write {
    Write::Put { table: Table::Tokens, key: hash.to_vec(), value: cbor::encode(entry) }
}

fn remove(hash: &Hash) -> Write {
    Write::Remove { table: Table::Tokens, key: hash.to_vec() }
}

fn make_room<T>(map: &mut BTreeMap<Hash, T>, ends: impl Fn(&T) -> UnixTime) {
    if map.len() >= SESSIONS_MAX {
        let first = map.iter().min_by_key(|(_, value)| ends(value)).map(|(hash, _)| *hash);
        if let Some(first) = first {
            map.remove(&first);
        }
    }
}

/// Looks at every entry, and at every byte of each, whether or not one fits.
fn find<'a, T>(map: &'a BTreeMap<Hash, T>, wanted: &Hash) -> Option<&'a T> {
    let mut found = None;
    for (hash, value) in map {
        if bool::from(hash.ct_eq(wanted)) {
            found = Some(value);
        }
    }
    found
}

fn hash_of(secret: &str) -> Option<Hash> {
    (secret.len() <= SECRET_CHARS_MAX).then(|| *ContentHash::of(secret.as_bytes()).as_bytes())
}

fn id_of(hash: &Hash) -> String {
    hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn new_secret() -> Result<(NewToken, Hash), TokenError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| TokenError::NoRandomness(error.to_string()))?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    let hash = *ContentHash::of(secret.as_bytes()).as_bytes();
    Ok((NewToken { id: id_of(&hash), secret }, hash))
}

#[cfg(test)]
mod tests {
    use wattle_store::Owner;

    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn access(directory: &std::path::Path) -> Access {
        let store = Store::open(directory, Owner::this_process("test")).unwrap();
        Access::open(Arc::new(store)).unwrap()
    }

    #[tokio::test]
    async fn a_token_works_until_it_expires_or_is_revoked_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let first = access(directory.path());
        let brief = first.new_token(Role::Read, None, Some(hour), NOW).await.unwrap();
        let lasting = first.new_token(Role::User, Some("bot".into()), None, NOW).await.unwrap();
        let admin = first.admin_token(NOW).unwrap();
        assert_eq!(first.token_role(&admin.secret, NOW), Some(Role::Admin));
        drop(first);

        let second = access(directory.path());
        assert_eq!(second.token_role(&brief.secret, NOW), Some(Role::Read));
        assert_eq!(second.token_role(&brief.secret, NOW.after(hour)), None);
        assert_eq!(second.token_role(&admin.secret, NOW), None, "the admin token ends with its process");
        assert_eq!(second.token_role("guess", NOW), None);
        second.revoke(&lasting.id).await.unwrap();
        assert_eq!(second.token_role(&lasting.secret, NOW), None);
        assert!(matches!(second.revoke(&lasting.id).await, Err(TokenError::NotFound(_))));
        assert_eq!(second.tokens(NOW).len(), 1);
    }

    #[tokio::test]
    async fn a_login_code_works_once_and_for_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let access = access(directory.path());
        let (code, expires) = access.login_code(NOW).unwrap();
        let (session, ends) = access.sign_in(&code, NOW).await.unwrap();
        assert!(access.sign_in(&code, NOW).await.is_err(), "used twice");
        assert_eq!(access.session_role(&session, NOW), Some(Role::Admin));
        assert_eq!(access.session_role(&session, ends), None);
        let (late, _) = access.login_code(NOW).unwrap();
        assert!(access.sign_in(&late, expires).await.is_err(), "used late");
    }

    #[tokio::test]
    async fn a_browser_stays_signed_in_over_a_restart_until_its_session_is_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let first = access(directory.path());
        let (code, _) = first.login_code(NOW).unwrap();
        let (session, ends) = first.sign_in(&code, NOW).await.unwrap();
        drop(first);

        let second = access(directory.path());
        assert_eq!(second.session_role(&session, NOW), Some(Role::Admin));
        assert_eq!(second.session_role(&session, ends), None);
        assert_eq!(second.token_role(&session, NOW), None, "a cookie is no bearer token");
        let rows = second.tokens(NOW);
        assert_eq!(rows.iter().filter_map(|row| row.label.as_deref()).collect::<Vec<_>>(), ["browser"]);
        second.revoke(&rows[0].id).await.unwrap();
        assert_eq!(second.session_role(&session, NOW), None);
        drop(second);
        assert_eq!(access(directory.path()).session_role(&session, NOW), None);
    }

    #[tokio::test]
    async fn the_session_that_ends_first_gives_way_to_one_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let access = access(directory.path());
        let mut sessions = Vec::new();
        for number in 0..=SESSIONS_MAX {
            let now = NOW.after(Duration::from_secs(number as u64));
            let (code, _) = access.login_code(now).unwrap();
            sessions.push(access.sign_in(&code, now).await.unwrap().0);
        }
        let now = NOW.after(Duration::from_secs(SESSIONS_MAX as u64));
        let lets_in: Vec<bool> =
            sessions.iter().map(|session| access.session_role(session, now).is_some()).collect();
        assert!(!lets_in[0] && lets_in[1..].iter().all(|lets_in| *lets_in), "{lets_in:?}");
        assert_eq!(access.tokens(now).len(), SESSIONS_MAX);
    }

    #[tokio::test]
    async fn a_secret_is_never_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let access = access(directory.path());
        let token = access.new_token(Role::Admin, None, None, NOW).await.unwrap();
        drop(access);
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
            assert!(!bytes.windows(43).any(|window| window == token.secret.as_bytes()));
        }
    }
}
