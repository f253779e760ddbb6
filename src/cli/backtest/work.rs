//! All components, as many at a time as there are cores; what comes out is in the order of set, component and time.

use std::{
    io::{self, Write},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use parking_lot::Mutex;

use super::{
    chart::Picture,
    csv::{Bad, CsvRows, Rows},
    jsonl, report,
    sources::{From, Source, Sources},
    walk::{Drawing, Settings, Stopped, Summary, walk},
};
use crate::analyze::forecast::Foresight;

/// JSON lines are passed on in pieces of this size, in bytes.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for those of the components before: with them a component's output is bounded.
const WAITING: usize = 16;

/// What came of all.
pub(super) struct Done {
    /// By set and component.
    pub summaries: Vec<Summary>,
    /// Of the report, one a summary.
    pub sections: Vec<String>,
    pub bad: Vec<Bad>,
}

/// A component that nobody has begun with, and where its output goes.
type Slot = Mutex<Option<(Source, SyncSender<Message>)>>;

/// Lets the gatherer end when a worker panics: it would wait for components that nobody does any more.
struct Drain<'a>(&'a [Slot]);

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|slot| drop(taken(slot)));
        }
    }
}

fn taken(slot: &Slot) -> Option<(Source, SyncSender<Message>)> {
    slot.lock().take()
}

enum Message {
    Piece(Vec<u8>),
    Finished(Box<Result<(Summary, Option<String>), Bad>>),
}

/// # Errors
/// When `lines` cannot be written to.
pub(super) fn work(
    sources: Sources,
    settings: &Settings,
    drawn: bool,
    mut lines: Option<&mut (dyn Write + Send + 'static)>,
) -> io::Result<Done> {
    let Sources { found, bad } = sources;
    let mut done = Done { summaries: Vec::with_capacity(found.len()), sections: Vec::new(), bad };
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for source in found {
        let (sender, receiver) = sync_channel(WAITING);
        senders.push(Mutex::new(Some((source, sender))));
        receivers.push(receiver);
    }
    let next = AtomicUsize::new(0);
    let wanted = lines.is_some();
    let take = || {
        // In order, so that the one whose output is awaited is always being worked at.
        taken(senders.get(next.fetch_add(1, Ordering::Relaxed))?)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(senders.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let _drain = Drain(&senders);
                while let Some((source, sender)) = take() {
                    if component(source, settings, drawn, wanted, &sender).is_err() {
                        // Nobody listens any more.
                        return;
                    }
                }
            });
        }
        for receiver in std::mem::take(&mut receivers) {
            gather(receiver, &mut done, &mut lines)?;
        }
        lines.map_or(Ok(()), |lines| lines.flush())
    })?;
    Ok(done)
}

fn gather(
    receiver: Receiver<Message>,
    done: &mut Done,
    lines: &mut Option<&mut (dyn Write + Send + 'static)>,
) -> io::Result<()> {
    for message in receiver {
        match message {
            Message::Piece(piece) => lines.as_mut().map_or(Ok(()), |lines| lines.write_all(&piece))?,
            Message::Finished(finished) => match *finished {
                Ok((summary, section)) => {
                    done.summaries.push(summary);
                    done.sections.extend(section);
                }
                Err(bad) => done.bad.push(bad),
            },
        }
    }
    Ok(())
}

/// One component from its first row to its part of the report. Fails when nobody listens.
fn component(
    source: Source,
    settings: &Settings,
    drawn: bool,
    wanted: bool,
    sender: &SyncSender<Message>,
) -> io::Result<()> {
    let Source { set, component, from, labels } = source;
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let opened = match from {
        From::File(file) => CsvRows::open(&file).map(|rows| Box::new(rows) as Box<dyn Rows>),
        From::Fetched(fetched) => Ok(Box::new(fetched) as Box<dyn Rows>),
    };
    let mut piece = Vec::new();
    let mut drawing = drawn.then(Drawing::default);
    let walked = opened.map_err(Stopped::from).and_then(|mut rows| {
        walk(rows.as_mut(), Foresight, settings, drawing.as_mut(), |moment, said| {
            if !wanted {
                return Ok(());
            }
            jsonl::write(&mut piece, &set, &component, moment, said)?;
            if piece.len() >= PIECE {
                sender.send(Message::Piece(std::mem::take(&mut piece))).map_err(gone)?;
            }
            Ok(())
        })
    });
    let finished = match walked {
        Ok(summary) => {
            let summary = Summary { set, component, ..summary };
            let labels = labels.get(&summary.component).map_or(&[][..], Vec::as_slice);
            let section = drawing.map(|drawing| {
                let picture = Picture { drawing: &drawing, summary: &summary, labels, ceilings: &settings.ceilings };
                report::section(&picture)
            });
            Ok((summary, section))
        }
        Err(Stopped::Bad(bad)) => Err(bad),
        Err(Stopped::Output(error)) => return Err(error),
    };
    if !piece.is_empty() {
        sender.send(Message::Piece(piece)).map_err(gone)?;
    }
    sender.send(Message::Finished(Box::new(finished))).map_err(gone)
}
