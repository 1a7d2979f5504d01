//! An SQLite VFS over the system's: files of a directory under test fail where the plan says, all others pass through.
//!
//! The database, its journal and its log come with method tables of their own, so each table that turns up is copied
//! once and three of its methods are replaced. What belongs to one file lies behind it, in bytes that the layer asks
//! SQLite for in addition (`szOsFile`).

#![expect(unsafe_code, reason = "SQLite's VFS interface is C")]

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};

use crate::testing::points::{self, Op, Verdict};

/// What is kept behind each open file.
#[repr(C)]
struct Tail {
    /// The plan's number; 0 for a file that nobody watches.
    plan: u64,
    original: *const sqlite3_io_methods,
    /// Which part of a database it is, for the log of points.
    name: &'static str,
}

/// The layer and the VFS under it, made once and kept for the life of the process.
struct Layer {
    real: *mut sqlite3_vfs,
    /// Where a file's tail begins.
    offset: usize,
    tables: Mutex<HashMap<usize, &'static sqlite3_io_methods>>,
}

// SAFETY: `real` points to a registered VFS, which SQLite itself uses from every thread and never frees; the rest is
// immutable or behind a lock.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

static LAYER: std::sync::OnceLock<Layer> = std::sync::OnceLock::new();
static INSTALL: Once = Once::new();

/// Makes the layer the default VFS of this process; once is enough.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        // SAFETY: a null name asks for the default VFS, which lives as long as the process.
        let real = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!real.is_null(), "SQLite has no default VFS");
        // SAFETY: `real` is a valid VFS; the struct is plain data that may be copied as long as what it points to lives.
        let mut copy = unsafe { std::ptr::read(real) };
        let size = usize::try_from(copy.szOsFile).unwrap_or(0).next_multiple_of(align_of::<Tail>());
        copy.szOsFile = c_int::try_from(size + size_of::<Tail>()).unwrap_or(c_int::MAX);
        copy.zName = c"supervisor-fault".as_ptr();
        copy.pNext = std::ptr::null_mut();
        copy.xOpen = Some(open);
        let layer = Layer { real, offset: size, tables: Mutex::new(HashMap::new()) };
        assert!(LAYER.set(layer).is_ok(), "the layer is made once");
        let leaked = Box::leak(Box::new(copy));
        // SAFETY: the struct is leaked, so it lives as long as the process, as SQLite demands.
        let registered = unsafe { ffi::sqlite3_vfs_register(leaked, 1) };
        assert_eq!(registered, ffi::SQLITE_OK, "SQLite refused the VFS");
    });
}

impl Layer {
    /// Gives what lies behind a file.
    fn tail(&self, file: *mut sqlite3_file) -> *mut Tail {
        // SAFETY: every file was allocated by SQLite with our `szOsFile`, which has room for a tail at this offset.
        unsafe { file.cast::<u8>().add(self.offset).cast() }
    }

    /// Gives the copy of a method table with ours in it.
    fn patched(&self, original: *const sqlite3_io_methods) -> &'static sqlite3_io_methods {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.entry(original as usize).or_insert_with(|| {
            // SAFETY: the table of a file that was just opened is valid and static in the VFS.
            let mut copy = unsafe { std::ptr::read(original) };
            copy.xWrite = Some(write);
            copy.xTruncate = Some(truncate);
            copy.xSync = Some(sync);
            Box::leak(Box::new(copy))
        })
    }
}

fn layer() -> Option<&'static Layer> {
    LAYER.get()
}

unsafe extern "C" fn open(
    _vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let Some(layer) = layer() else { return ffi::SQLITE_CANTOPEN };
    let mut plan = 0;
    if !name.is_null() {
        // SAFETY: SQLite gives a null or a zero-terminated name that lives as long as the file.
        let text = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let path = Path::new(text.as_ref());
        plan = points::plan_of(path);
        if let Verdict::Fail { .. } = points::decide(plan, Op::Open, part(flags)) {
            // SAFETY: SQLite gave a file to fill; without methods it is one that was not opened.
            unsafe { (*file).pMethods = std::ptr::null() };
            return ffi::SQLITE_CANTOPEN;
        }
    }
    // SAFETY: `real` is a valid VFS with an `xOpen`, called with its own pointer and SQLite's arguments.
    let result = unsafe {
        match (*layer.real).xOpen {
            Some(open) => open(layer.real, name, file, flags, out),
            None => ffi::SQLITE_CANTOPEN,
        }
    };
    // SAFETY: the file was filled by the call above; its table may be null after a failure.
    let original = unsafe { (*file).pMethods };
    if result == ffi::SQLITE_OK && !original.is_null() {
        // SAFETY: the tail lies within the allocation, and nobody else knows of the file yet.
        unsafe {
            std::ptr::write(layer.tail(file), Tail { plan, original, name: part(flags) });
            (*file).pMethods = layer.patched(original);
        }
    }
    result
}

const fn part(flags: c_int) -> &'static str {
    if flags & ffi::SQLITE_OPEN_WAL != 0 {
        "log"
    } else if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        "database"
    } else {
        "journal"
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let Some(layer) = layer() else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: only files that our `open` filled have our table, so the tail is there.
    let tail = unsafe { &*layer.tail(file) };
    // SAFETY: the table is the VFS's own, static.
    let Some(real) = (unsafe { (*tail.original).xWrite }) else { return ffi::SQLITE_IOERR_WRITE };
    match points::decide(tail.plan, Op::Write, tail.name) {
        // SAFETY: SQLite's own arguments, passed on.
        Verdict::Pass => unsafe { real(file, data, amount, offset) },
        Verdict::Fail { full, torn } => {
            if torn {
                // SAFETY: as above with less of the same buffer; what it says does not matter, the write failed.
                _ = unsafe { real(file, data, amount / 2, offset) };
            }
            if full { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR_WRITE }
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    let Some(layer) = layer() else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: as in `write`.
    let tail = unsafe { &*layer.tail(file) };
    // SAFETY: as in `write`.
    let Some(real) = (unsafe { (*tail.original).xTruncate }) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    match points::decide(tail.plan, Op::Truncate, tail.name) {
        // SAFETY: SQLite's own arguments, passed on.
        Verdict::Pass => unsafe { real(file, size) },
        Verdict::Fail { .. } => ffi::SQLITE_IOERR_TRUNCATE,
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let Some(layer) = layer() else { return ffi::SQLITE_IOERR_FSYNC };
    // SAFETY: as in `write`.
    let tail = unsafe { &*layer.tail(file) };
    // SAFETY: as in `write`.
    let Some(real) = (unsafe { (*tail.original).xSync }) else { return ffi::SQLITE_IOERR_FSYNC };
    match points::decide(tail.plan, Op::Sync, tail.name) {
        // SAFETY: SQLite's own arguments, passed on.
        Verdict::Pass => unsafe { real(file, flags) },
        Verdict::Fail { .. } => ffi::SQLITE_IOERR_FSYNC,
    }
}
