//! Which call fails: plans by directory, counted calls, one verdict for each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Opening a file.
    Open,
    /// Writing to it.
    Write,
    /// Making it durable.
    Sync,
    /// Cutting it.
    Truncate,
    /// Giving it another name.
    Rename,
}

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// One call fails with an I/O error.
    Once,
    /// One write fails for lack of space; any other call with an I/O error.
    OnceFull,
    /// One write stops in the middle and fails with an I/O error; any other call just fails.
    Torn,
    /// The call and all after it fail with I/O errors.
    Persistent,
    /// The call and all writes after it fail for lack of space; reading, syncing and cutting work.
    PersistentFull,
    /// Every sync from the call on fails; everything else works.
    PersistentSync,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail { full: bool, torn: bool },
}

const PASS: Verdict = Verdict::Pass;

/// Lets calls below one directory fail, and counts them.
///
/// Files that are open already when the plan is made are not concerned. It ends when it is dropped.
#[derive(Debug)]
pub struct FaultPlan {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    number: u64,
    dir: PathBuf,
    calls: AtomicU64,
    armed: Mutex<Option<(u64, How)>>,
    on: AtomicBool,
    fired: Mutex<Vec<String>>,
    ops: Mutex<Vec<Op>>,
}

static PLANS: RwLock<Vec<Arc<Inner>>> = RwLock::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Descriptions of failed calls that are kept.
const FIRED_MAX: usize = 16;
/// Calls that are listed.
const OPS_MAX: usize = 100_000;

impl FaultPlan {
    /// Watches a directory that exists.
    ///
    /// # Errors
    /// What the system says about the directory.
    pub fn watch(dir: impl AsRef<Path>) -> io::Result<Self> {
        crate::os::fault_vfs::install();
        let inner = Arc::new(Inner {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            dir: dir.as_ref().canonicalize()?,
            calls: AtomicU64::new(0),
            armed: Mutex::new(None),
            on: AtomicBool::new(true),
            fired: Mutex::new(Vec::new()),
            ops: Mutex::new(Vec::new()),
        });
        PLANS.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&inner));
        Ok(Self { inner })
    }

    /// Lets the `n`-th call from now on fail (the first is 1).
    pub fn arm(&self, n: u64, how: How) {
        self.inner.calls.store(0, Ordering::SeqCst);
        self.inner.fired.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.inner.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((n, how));
    }

    /// Lets everything work again; counting goes on.
    pub fn disarm(&self) {
        *self.inner.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Gives how many calls there were since the plan was made or armed.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner.calls.load(Ordering::SeqCst)
    }

    /// Gives what the calls were that were made while nothing was armed, at most 100,000.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.inner.ops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Describes the first calls that failed since the plan was armed.
    #[must_use]
    pub fn fired(&self) -> Vec<String> {
        self.inner.fired.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FaultPlan {
    fn drop(&mut self) {
        self.inner.on.store(false, Ordering::SeqCst);
        let mut plans = PLANS.write().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|plan| !Arc::ptr_eq(plan, &self.inner));
    }
}

/// Gives the number of the plan that watches a path, 0 if none does.
pub(crate) fn plan_of(path: &Path) -> u64 {
    let plans = PLANS.read().unwrap_or_else(PoisonError::into_inner);
    plans.iter().find(|plan| path.starts_with(&plan.dir)).map_or(0, |plan| plan.number)
}

/// Counts a call and decides about it.
pub(crate) fn decide(plan: u64, op: Op, name: &str) -> Verdict {
    if plan == 0 {
        return PASS;
    }
    let found = {
        let plans = PLANS.read().unwrap_or_else(PoisonError::into_inner);
        plans.iter().find(|known| known.number == plan).map(Arc::clone)
    };
    let Some(plan) = found.filter(|plan| plan.on.load(Ordering::SeqCst)) else { return PASS };
    let call = plan.calls.fetch_add(1, Ordering::SeqCst) + 1;
    let armed = *plan.armed.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((at, how)) = armed else {
        let mut ops = plan.ops.lock().unwrap_or_else(PoisonError::into_inner);
        if ops.len() < OPS_MAX {
            ops.push(op);
        }
        return PASS;
    };
    let fails = match how {
        How::Once | How::OnceFull | How::Torn => call == at,
        How::Persistent => call >= at,
        How::PersistentFull => call >= at && matches!(op, Op::Write | Op::Open),
        How::PersistentSync => call >= at && op == Op::Sync,
    };
    if !fails {
        return PASS;
    }
    let mut fired = plan.fired.lock().unwrap_or_else(PoisonError::into_inner);
    if fired.len() < FIRED_MAX {
        fired.push(format!("{op:?} of {name}, call {call}"));
    }
    let full = matches!(how, How::OnceFull | How::PersistentFull);
    Verdict::Fail { full, torn: how == How::Torn }
}

fn point(path: &Path, op: Op) -> io::Result<()> {
    let absolute = path.parent().and_then(|parent| parent.canonicalize().ok());
    let plan = plan_of(absolute.as_deref().unwrap_or(path));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match decide(plan, op, &name) {
        Verdict::Pass => Ok(()),
        Verdict::Fail { full: true, .. } => Err(io::ErrorKind::StorageFull.into()),
        Verdict::Fail { .. } => Err(io::Error::other("a test let this call fail")),
    }
}

/// A file that is not SQLite's is about to be opened for writing.
pub(crate) fn open(path: &Path) -> io::Result<()> {
    point(path, Op::Open)
}

/// It is about to be written.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    point(path, Op::Write)
}

/// It is about to be synced.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    point(path, Op::Sync)
}

/// It is about to get its name.
pub(crate) fn rename(path: &Path) -> io::Result<()> {
    point(path, Op::Rename)
}
