//! The store as the driver has it: writes that do not starve the runtime, and a store that fails looked after until it keeps
//! writes again. Meanwhile it may be away, being mended on a thread that may block.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::store::{Recovery, Store, StoreCondition, StoreError};
use crate::proto::io::Write;

/// The first look after a failure: most have ended by themselves by then, or will not soon.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause between two looks: a node is well again within a minute of the room that it was given.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The pause between two looks at a disk whose room is short, or of which nothing is known to be wrong: they cost nothing, and
/// what fills it or takes it away is noticed though nobody writes.
const LOOK: Duration = Duration::from_secs(5);
/// How long the end waits for a store that is being mended: what closing itself may take.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// The store, and how it is.
pub(crate) struct StoreKeeper {
    place: Place,
    /// What the store said last.
    condition: StoreCondition,
    /// What was told of it.
    told: StoreCondition,
    retry_at: Instant,
    retry: Duration,
    /// When a store that is well is looked at.
    look_at: Instant,
}

enum Place {
    Here(Store),
    Mending(JoinHandle<(Store, Recovery)>),
    /// The thread that mended it broke down.
    Lost,
}

impl StoreKeeper {
    pub(crate) fn new(store: Store) -> StoreKeeper {
        StoreKeeper {
            condition: store.condition(),
            place: Place::Here(store),
            told: StoreCondition::Well,
            retry_at: Instant::now() + RETRY,
            retry: RETRY,
            look_at: Instant::now() + LOOK,
        }
    }

    /// Makes the changes; see [`Store::write`].
    ///
    /// # Errors
    /// Why none of them counts as made.
    pub(crate) fn write(&mut self, writes: &[Write]) -> Result<(), String> {
        if writes.is_empty() {
            return Ok(());
        }
        let Place::Here(store) = &mut self.place else { return Err(reason(&self.condition)) };
        // `block_in_place` panics on a runtime of one thread, and what is not durable is only queued.
        let blocks = writes.iter().any(|write| write.durable) && may_block();
        let written =
            if blocks { tokio::task::block_in_place(|| store.write(writes)) } else { store.write(writes) };
        self.condition = store.condition();
        written.map_err(|error| match &self.condition {
            StoreCondition::Failed(reason) => reason.clone(),
            StoreCondition::Well | StoreCondition::Short(_) => error.cause(),
        })
    }

    /// What the store can do.
    pub(crate) fn condition(&self) -> StoreCondition {
        self.condition.clone()
    }

    /// The same, if it has changed since it was told.
    pub(crate) fn news(&mut self) -> Option<StoreCondition> {
        if let Place::Here(store) = &self.place {
            self.condition = store.condition();
        }
        if self.condition == self.told {
            return None;
        }
        match &self.condition {
            StoreCondition::Well => tracing::warn!(event = "store_well", "the store keeps everything again"),
            StoreCondition::Short(text) => {
                tracing::warn!(event = "store_short", "the disk is nearly full: {text}")
            }
            StoreCondition::Failed(reason) => {
                tracing::error!(event = "store_failed", "the store takes no writes: {reason}")
            }
        }
        if self.told == StoreCondition::Well {
            self.retry_at = Instant::now() + self.retry;
        }
        self.told = self.condition.clone();
        Some(self.condition.clone())
    }

    /// Resolves when the store has been looked at, or looked after where it was not well.
    pub(crate) async fn recovery(&mut self) -> Recovery {
        if let Place::Here(_) = &self.place {
            let is_well = self.told == StoreCondition::Well;
            sleep_until(if is_well { self.look_at } else { self.retry_at }).await;
            self.look_at = Instant::now() + LOOK;
            let Place::Here(store) = &mut self.place else { return Recovery::default() };
            if is_well {
                store.look();
                return Recovery::default();
            }
            if let StoreCondition::Short(_) = &self.told {
                // Own writes must not find the store away.
                let recovery = store.recover();
                self.put_off();
                return recovery;
            }
            self.put_off();
            self.mend();
        }
        let Place::Mending(mending) = &mut self.place else { return std::future::pending().await };
        let mended = mending.await;
        self.put_off();
        match mended {
            Ok((store, recovery)) => {
                self.condition = store.condition();
                self.place = Place::Here(store);
                recovery
            }
            Err(error) => {
                self.condition =
                    StoreCondition::Failed(format!("it broke down ({error}); start the node again"));
                self.place = Place::Lost;
                Recovery::default()
            }
        }
    }

    /// The next look comes later than the last did, but for a store that was well in between for long.
    fn put_off(&mut self) {
        if let StoreCondition::Short(_) = &self.told {
            self.retry_at = Instant::now() + LOOK;
            return;
        }
        let late = self.retry_at + RETRY_MAX < Instant::now();
        self.retry = if late { RETRY } else { (self.retry * 2).min(RETRY_MAX) };
        self.retry_at = Instant::now() + self.retry;
    }

    /// Gives the store to a thread that may block.
    fn mend(&mut self) {
        if let Place::Here(mut store) = std::mem::replace(&mut self.place, Place::Lost) {
            self.place = Place::Mending(tokio::task::spawn_blocking(move || {
                let recovery = store.recover();
                (store, recovery)
            }));
        }
    }

    /// Closes the store. What it failed to write is no news where it was told that it fails.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        let store = match self.place {
            Place::Here(store) => store,
            Place::Mending(mending) => match timeout(CLOSE_WAIT, mending).await {
                Ok(Ok((store, _))) => store,
                Ok(Err(_)) | Err(_) => return Ok(()),
            },
            Place::Lost => return Ok(()),
        };
        // It may block for seconds, so not on this thread.
        let closed = tokio::task::spawn_blocking(move || store.close()).await.unwrap_or(Ok(()));
        match self.told {
            StoreCondition::Failed(_) => Ok(()),
            StoreCondition::Well | StoreCondition::Short(_) => closed,
        }
    }
}

fn reason(condition: &StoreCondition) -> String {
    match condition {
        StoreCondition::Failed(reason) | StoreCondition::Short(reason) => reason.clone(),
        StoreCondition::Well => "it is being mended".into(),
    }
}

fn may_block() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
}
