//! All components, some at a time; the output is in the order of set, component and time.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use super::{
    chart::Picture,
    csv::{Bad, CsvRows, Rows},
    jsonl, report,
    sources::{From, Source, Sources},
    walk::{Drawing, Settings, Stopped, Summary, walk},
};
use crate::analyze::forecast::Foresight;

/// Size of the pieces in which JSON lines are passed on, in bytes.
const PIECE: usize = 64 * 1024;
/// Most pieces of a component that wait for the components before: they bound its output in memory.
const WAITING: usize = 16;
/// Components in progress for each core: one that waits for another leaves no core idle.
const PER_CORE: usize = 2;

pub(super) struct Done {
    /// By set and component.
    pub summaries: Vec<Summary>,
    /// Of the report, one for each summary.
    pub sections: Vec<String>,
    pub bad: Vec<Bad>,
}

/// A summary, and the section of the report.
type Finished = Result<(Summary, Option<String>), Stopped>;

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
    let wanted = lines.is_some();
    let most = PER_CORE * thread::available_parallelism().map_or(1, usize::from);
    let mut sources = found.into_iter();
    thread::scope(|scope| {
        let mut running = VecDeque::new();
        loop {
            for source in sources.by_ref().take(most - running.len()) {
                let (sender, pieces) = sync_channel::<Vec<u8>>(WAITING);
                let worker = scope.spawn(move || component(source, settings, drawn, wanted.then_some(&sender)));
                running.push_back((pieces, worker));
            }
            let Some((pieces, worker)) = running.pop_front() else { break };
            for piece in pieces {
                lines.as_mut().map_or(Ok(()), |lines| lines.write_all(&piece))?;
            }
            match worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                Ok((summary, section)) => {
                    done.summaries.push(summary);
                    done.sections.extend(section);
                }
                Err(Stopped::Bad(bad)) => done.bad.push(bad),
                Err(Stopped::Output(error)) => return Err(error),
            }
        }
        lines.map_or(Ok(()), |lines| lines.flush())
    })?;
    Ok(done)
}

/// One component from its first row to its section of the report; `pieces` get its JSON lines. Fails without a receiver.
fn component(source: Source, settings: &Settings, drawn: bool, pieces: Option<&SyncSender<Vec<u8>>>) -> Finished {
    let Source { set, component, from, labels } = source;
    let send = |sender: &SyncSender<Vec<u8>>, piece| {
        sender.send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    let mut rows: Box<dyn Rows> = match from {
        From::File(file) => Box::new(CsvRows::open(&file)?),
        From::Fetched(fetched) => Box::new(fetched),
    };
    let mut piece = Vec::new();
    let mut drawing = drawn.then(Drawing::default);
    let walked = walk(rows.as_mut(), Foresight, settings, drawing.as_mut(), |moment, replayed| {
        let Some(sender) = pieces else { return Ok(()) };
        jsonl::write(&mut piece, &set, &component, moment, replayed)?;
        if piece.len() >= PIECE {
            send(sender, std::mem::take(&mut piece))?;
        }
        Ok(())
    });
    if let Some(sender) = pieces.filter(|_| !piece.is_empty()) {
        send(sender, piece)?;
    }
    let summary = Summary { set, component, ..walked? };
    let labels = labels.get(&summary.component).map_or(&[][..], Vec::as_slice);
    let section = drawing.map(|drawing| {
        report::section(&Picture { drawing: &drawing, summary: &summary, labels, ceilings: &settings.ceilings })
    });
    Ok((summary, section))
}
