//! So many lines of a kind a second: whoever makes the gateway log cannot fill its disk.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one kind that may come at once, in seconds' worth.
const BURST: Duration = Duration::from_secs(10);
/// What one line takes of that: ten come a second in the long run.
const LINE: Duration = Duration::from_millis(100);

/// Counts the lines that come from each place of the program.
#[derive(Clone, Default)]
pub(super) struct Throttle(Arc<Mutex<HashMap<Identifier, Kind>>>);

struct Kind {
    /// When its bucket will be full again.
    full_at: Instant,
    /// How many were left out since that was last told, and what the first of them said.
    left_out: usize,
    message: String,
}

impl Throttle {
    /// What has been left out since this was last asked.
    pub(super) fn take_left_out(&self) -> Vec<(usize, String)> {
        let mut kinds = self.0.lock();
        let left_out = kinds.values_mut().filter(|kind| kind.left_out > 0);
        left_out.map(|kind| (std::mem::take(&mut kind.left_out), std::mem::take(&mut kind.message))).collect()
    }

    /// Whether one more line of a kind may be written.
    fn allows(&self, event: &Event<'_>, now: Instant) -> bool {
        let mut kinds = self.0.lock();
        let kind = kinds.entry(event.metadata().callsite());
        let kind = kind.or_insert(Kind { full_at: now, left_out: 0, message: String::new() });
        let full_at = kind.full_at.max(now) + LINE;
        if full_at <= now + BURST {
            kind.full_at = full_at;
            return true;
        }
        if kind.left_out == 0 {
            event.record(&mut Message(&mut kind.message));
        }
        kind.left_out += 1;
        false
    }
}

impl<S: Subscriber> Filter<S> for Throttle {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Whoever asks for more than usual gets it.
        *event.metadata().level() > Level::INFO || self.allows(event, Instant::now())
    }
}

/// Picks the message out of an event's fields.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}
