//! Users and passwords.
//!
//! bcrypt is slow on purpose, so a flood of wrong passwords must not become the
//! load, nor keep others from being asked: passwords are checked one at a time,
//! on a thread of their own; from one address at most [`WAITING_FROM_ONE`] wait
//! for that, further ones are told to come back; and a password that was right
//! once is known from then on, so a scrape costs one HMAC.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

/// Requests of one address that may wait for a password to be checked.
const WAITING_FROM_ONE: usize = 4;
/// A check takes 2^cost rounds: at 16, seconds.
const COSTLIEST: u32 = 16;

/// Users with the bcrypt hashes of their passwords; not empty.
#[derive(Clone)]
pub(super) struct Users {
    hashes: HashMap<String, String>,
    /// Checked for a user that is not there, so that the time tells nothing: the
    /// costliest hash of those that are.
    decoy: String,
}

impl Users {
    /// `None` without any user. Hashes must have been checked by [`cost_of`].
    pub(super) fn new(hashes: HashMap<String, String>) -> Option<Self> {
        let decoy = hashes.values().max_by_key(|hash| cost_of(hash).ok()).cloned()?;
        Some(Self { hashes, decoy })
    }
}

/// The cost of a bcrypt hash.
///
/// # Errors
///
/// It is none, or costs too much, in words for the user.
pub(super) fn cost_of(hash: &str) -> Result<u32, String> {
    let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
        "not a bcrypt hash; `htpasswd -nBC 10 \"\"` asks for a password and prints one".to_owned()
    })?;
    match parts.get_cost() {
        cost if cost > COSTLIEST => Err(format!(
            "a bcrypt hash of cost {cost}, which takes minutes to check; make one of at most \
             {COSTLIEST}, 10 to 12 are usual"
        )),
        cost => Ok(cost),
    }
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// User and password are right.
    Granted,
    /// There are none.
    Unnamed,
    /// They are wrong.
    Wrong,
    /// Too many of this address are being checked.
    Busy,
}

/// Checks passwords. It outlives a change of the users: what it remembers is
/// bound to the hash.
pub(super) struct Checker {
    /// For the codes below; of this process alone.
    key: hmac::Key,
    /// By user, the code of the password that was right: never the password. No
    /// more entries than there were users.
    known: Mutex<HashMap<String, hmac::Tag>>,
    turn: Arc<Semaphore>,
    waiting: Mutex<HashMap<IpAddr, usize>>,
}

impl Checker {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        #[expect(
            clippy::expect_used,
            reason = "getrandom(2) gives 32 bytes on any kernel with BPF"
        )]
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("random bytes");
        Self {
            key,
            known: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: Mutex::default(),
        }
    }

    /// Judges the `Authorization` header of a request from `peer`.
    pub(super) async fn check(
        &self,
        users: &Users,
        peer: IpAddr,
        header: Option<&HeaderValue>,
    ) -> Verdict {
        let Some(header) = header else { return Verdict::Unnamed };
        let Some((user, password)) = credentials(header) else { return Verdict::Wrong };
        let (hash, exists) = match users.hashes.get(&user) {
            Some(hash) => (hash.clone(), true),
            None => (users.decoy.clone(), false),
        };
        // A hash holds no NUL, so nothing else has this text.
        let text = [hash.as_bytes(), b"\0", &password].concat();
        if exists
            && let Some(tag) = lock(&self.known).get(&user)
            && hmac::verify(&self.key, &text, tag.as_ref()).is_ok()
        {
            return Verdict::Granted;
        }
        let Some(_waiting) = Waiting::enter(&self.waiting, peer) else { return Verdict::Busy };
        // Never closed. The turn goes along with the check: it lasts as long as
        // the thread is at it, also when the client hangs up meanwhile.
        let Ok(turn) = self.turn.clone().acquire_owned().await else { return Verdict::Busy };
        let checked = tokio::task::spawn_blocking(move || {
            let right = bcrypt::verify(&password, &hash).unwrap_or(false);
            drop(turn);
            right
        });
        if !checked.await.unwrap_or(false) || !exists {
            return Verdict::Wrong;
        }
        let mut known = lock(&self.known);
        known.retain(|user, _| users.hashes.contains_key(user));
        known.insert(user, hmac::sign(&self.key, &text));
        Verdict::Granted
    }
}

/// A request that waits for its password to be checked, counted by address.
struct Waiting<'a> {
    counts: &'a Mutex<HashMap<IpAddr, usize>>,
    peer: IpAddr,
}

impl<'a> Waiting<'a> {
    fn enter(counts: &'a Mutex<HashMap<IpAddr, usize>>, peer: IpAddr) -> Option<Self> {
        let mut all = lock(counts);
        let count = all.entry(peer).or_default();
        if *count >= WAITING_FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Self { counts, peer })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = lock(self.counts).entry(self.peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// User and password of a header as RFC 7617 has it.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut decoded = BASE64.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.pop();
    Some((String::from_utf8(decoded).ok()?, password))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// The least that bcrypt has.
    const COST: u32 = 4;

    fn users(of: &[(&str, &str)]) -> Users {
        let hash = |password: &str| bcrypt::hash(password, COST).unwrap();
        let hashes = of.iter().map(|(user, password)| ((*user).to_owned(), hash(password)));
        Users::new(hashes.collect()).unwrap()
    }

    fn header(user: &str, password: &str) -> HeaderValue {
        let encoded = BASE64.encode(format!("{user}:{password}"));
        HeaderValue::from_str(&format!("Basic {encoded}")).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_alone_is_granted() {
        let (checker, users) = (Checker::new(), users(&[("ann", "a:b"), ("bob", "")]));
        for (user, password, verdict) in [
            ("ann", "a:b", Verdict::Granted),
            ("ann", "a:b", Verdict::Granted),
            ("ann", "a", Verdict::Wrong),
            ("bob", "", Verdict::Granted),
            ("bob", "a:b", Verdict::Wrong),
            ("eve", "a:b", Verdict::Wrong),
            ("", "", Verdict::Wrong),
        ] {
            let header = header(user, password);
            assert_eq!(checker.check(&users, PEER, Some(&header)).await, verdict, "{user}");
        }
        assert_eq!(checker.check(&users, PEER, None).await, Verdict::Unnamed);
        for bad in ["Bearer x", "Basic", "Basic !", "Basic YQ==", "basic  "] {
            let bad = HeaderValue::from_static(bad);
            assert_eq!(checker.check(&users, PEER, Some(&bad)).await, Verdict::Wrong);
        }
    }

    #[tokio::test]
    async fn a_password_that_was_right_is_not_computed_again_until_the_hash_changes() {
        let (checker, old) = (Checker::new(), users(&[("ann", "x")]));
        let right = header("ann", "x");
        assert_eq!(checker.check(&old, PEER, Some(&right)).await, Verdict::Granted);
        // Nobody's turn comes, so only what is known can be granted.
        let _turn = checker.turn.clone().acquire_owned().await.unwrap();
        assert_eq!(checker.check(&old, PEER, Some(&right)).await, Verdict::Granted);
        let new = users(&[("ann", "y")]);
        let asked = checker.check(&new, PEER, Some(&right));
        let asked = tokio::time::timeout(std::time::Duration::from_millis(50), asked).await;
        assert!(asked.is_err(), "granted by the old hash");
    }

    #[tokio::test]
    async fn a_flood_from_one_address_waits_by_itself() {
        let checker = Arc::new(Checker::new());
        let users = users(&[("ann", "x")]);
        let turn = checker.turn.clone().acquire_owned().await.unwrap();
        let ask = |peer: IpAddr, password: &str| {
            let (checker, users) = (checker.clone(), users.clone());
            let header = header("ann", password);
            tokio::spawn(async move { checker.check(&users, peer, Some(&header)).await })
        };
        let flood: Vec<_> = (0..50).map(|i| ask(PEER, &i.to_string())).collect();
        let other = ask(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), "x");
        tokio::task::yield_now().await;
        drop(turn);
        assert_eq!(other.await.unwrap(), Verdict::Granted);
        let mut verdicts = Vec::new();
        for asked in flood {
            verdicts.push(asked.await.unwrap());
        }
        let of = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
        assert_eq!((of(Verdict::Wrong), of(Verdict::Busy)), (WAITING_FROM_ONE, 46));
        assert!(lock(&checker.waiting).is_empty(), "all have left");
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_the_costliest() {
        let hash = |cost| bcrypt::hash("x", cost).unwrap();
        let hashes =
            [("a".to_owned(), hash(4)), ("b".to_owned(), hash(6)), ("c".to_owned(), hash(5))];
        assert_eq!(cost_of(&Users::new(hashes.into()).unwrap().decoy), Ok(6));
        assert!(Users::new(HashMap::new()).is_none());
    }

    #[test]
    fn what_is_no_hash_or_takes_too_long_is_refused() {
        assert_eq!(cost_of("$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"), Ok(10));
        assert!(cost_of("secret").unwrap_err().contains("htpasswd -nBC 10"));
        let long = "$2y$31$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
        assert!(cost_of(long).unwrap_err().contains("cost 31"));
    }
}
