//! Large bodies of responses, which are bounded in number.
//!
//! The body of a scrape may have megabytes, and a slow client keeps it in memory
//! until it has taken the last byte. So at most [`MAX_BODIES`] are there at
//! once, and scrapes that come together, within the time that a snapshot is
//! taken for fresh, share one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::places::{Phase, Places};
use crate::snapshot::Snapshot;

/// Large bodies in memory at once.
const MAX_BODIES: usize = 16;

/// Makes and shares them.
#[derive(Clone)]
pub(super) struct Answers<K> {
    places: Arc<Places>,
    free: Arc<Semaphore>,
    latest: Arc<Mutex<Option<Latest<K>>>>,
}

/// The last that was made: from which snapshot, in which form.
struct Latest<K> {
    snapshot: Arc<Snapshot>,
    form: K,
    body: Bytes,
}

/// A body, counted as long as anybody has it.
struct Counted {
    body: Vec<u8>,
    _one: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl<K: PartialEq> Answers<K> {
    pub(super) fn new(places: Arc<Places>) -> Self {
        Self { places, free: Arc::new(Semaphore::new(MAX_BODIES)), latest: Arc::default() }
    }

    /// The body of `snapshot`, and what goes with it, in `form`: that of a moment ago, or what `make`
    /// makes. Waits while there are too many; clients that dawdle over theirs
    /// have to leave then.
    ///
    /// # Errors
    ///
    /// What `make` fails with.
    pub(super) async fn get<T, E>(
        &self,
        form: K,
        snapshot: impl FnOnce() -> (Arc<Snapshot>, T),
        make: impl FnOnce((Arc<Snapshot>, T)) -> Result<Vec<u8>, E>,
    ) -> Result<Bytes, E> {
        let one = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(one) => one,
            Err(_) => {
                // It may be the one that is missing.
                *self.latest() = None;
                self.places.make_room(&self.free, |phase| phase == Phase::Taking).await
            }
        };
        // Not before there is room: it would not be fresh.
        let (snapshot, rest) = snapshot();
        if let Some(latest) = &*self.latest()
            && Arc::ptr_eq(&latest.snapshot, &snapshot)
            && latest.form == form
        {
            return Ok(latest.body.clone());
        }
        let body = make((snapshot.clone(), rest))?;
        let body = Bytes::from_owner(Counted { body, _one: one });
        *self.latest() = Some(Latest { snapshot, form, body: body.clone() });
        Ok(body)
    }

    fn latest(&self) -> MutexGuard<'_, Option<Latest<K>>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::serve::example;
    use crate::serve::places::Limits;

    fn answers() -> Answers<u8> {
        Answers::new(Places::new(1, Limits::default()))
    }

    async fn get(answers: &Answers<u8>, form: u8, snapshot: &Arc<Snapshot>) -> Bytes {
        let made =
            answers.get(form, || (snapshot.clone(), ()), |_| Ok::<_, Infallible>(vec![form]));
        made.await.unwrap()
    }

    #[tokio::test]
    async fn those_who_come_together_share_one_body() {
        let (answers, snapshot) = (answers(), Arc::new(example::snapshot()));
        let body = get(&answers, 1, &snapshot).await;
        assert_eq!(get(&answers, 1, &snapshot).await.as_ptr(), body.as_ptr());
        assert_eq!(answers.free.available_permits(), MAX_BODIES - 1);
        assert_eq!(get(&answers, 2, &snapshot).await.as_ref(), [2], "another form");
        let later = Arc::new(example::snapshot());
        assert_ne!(get(&answers, 2, &later).await.as_ptr(), body.as_ptr(), "another snapshot");
    }

    #[tokio::test]
    async fn no_more_bodies_than_allowed_are_in_memory() {
        let answers = answers();
        let mut held = Vec::new();
        for _ in 0..MAX_BODIES {
            held.push(get(&answers, 0, &Arc::new(example::snapshot())).await);
        }
        let snapshot = Arc::new(example::snapshot());
        let more = timeout(Duration::from_millis(20), get(&answers, 0, &snapshot)).await;
        assert!(more.is_err(), "made one more");
        held.pop();
        get(&answers, 0, &snapshot).await;
    }
}
