//! Keeps revocations in a file, so that a crash loses none that was acknowledged.
//!
//! One thread writes. What has come while it was writing it commits together, so that a thousand
//! revocations at once cost few of the disk's slow confirmations.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

/// By number, as JSON.
const REVOCATIONS: TableDefinition<'_, u64, &str> = TableDefinition::new("revocations");
/// Changes that one commit takes.
const CHANGES_PER_COMMIT: usize = 1000;

/// A file that changes are written to. It is closed when this has been dropped.
pub(super) struct Store {
    orders: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

/// One change.
pub(super) enum Change {
    Put(u64, String),
    Remove(u64),
}

struct Order {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Store {
    /// Opens a file, makes it if need be, and reads what is in it.
    ///
    /// # Errors
    /// In words: it cannot be opened, or another process has it open.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<(u64, String)>), String> {
        let failed = |error: redb::Error| format!("{} cannot be used: {error}", path.display());
        let database = Database::create(path).map_err(|error| failed(error.into()))?;
        let entries = read(&database).map_err(failed)?;
        let (sender, orders) = channel();
        let writer = thread::Builder::new().name("revocations".to_owned()).spawn({
            let path = path.to_owned();
            move || write(&path, database, &orders)
        });
        let writer = writer.map_err(|error| format!("a thread cannot be started: {error}"))?;
        Ok((Self { orders: Some(sender), writer: Some(writer) }, entries))
    }

    /// Writes changes, all or none, and waits until they are on the disk.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<(), String> {
        let (done, committed) = oneshot::channel();
        let gone = || "the thread that writes has ended".to_owned();
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(Order { changes, done }).map_err(|_| gone())?;
        committed.await.map_err(|_| gone())?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes revocations has panicked");
        }
    }
}

fn read(database: &Database) -> Result<Vec<(u64, String)>, redb::Error> {
    // Opening it for writing makes the table.
    let transaction = database.begin_write()?;
    transaction.open_table(REVOCATIONS)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let table = transaction.open_table(REVOCATIONS)?;
    let mut entries = Vec::new();
    for entry in table.iter()? {
        let (number, json) = entry?;
        entries.push((number.value(), json.value().to_owned()));
    }
    Ok(entries)
}

fn write(path: &Path, database: Database, orders: &Receiver<Order>) {
    let mut database = Some(database);
    while let Ok(first) = orders.recv() {
        let batch: Vec<Order> = std::iter::once(first).chain(orders.try_iter().take(CHANGES_PER_COMMIT)).collect();
        let result = match &database {
            Some(database) => apply(database, &batch),
            // Opening it anew finds what was committed last.
            None => Database::create(path)
                .map_err(redb::Error::from)
                .and_then(|opened| apply(database.insert(opened), &batch)),
        };
        if result.is_err() {
            // After an error of the disk it takes no more: closed now, it is opened for the next order.
            database = None;
        }
        let result = result.map_err(|error| error.to_string());
        for order in batch {
            // Whoever asked may have gone; the change is made all the same.
            let _asked_no_more = order.done.send(result.clone());
        }
    }
}

/// A transaction that is not committed changes nothing; one that is has reached the disk.
fn apply(database: &Database, batch: &[Order]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(REVOCATIONS)?;
        for change in batch.iter().flat_map(|order| &order.changes) {
            match change {
                Change::Put(number, json) => table.insert(number, json.as_str())?,
                Change::Remove(number) => table.remove(number)?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}
