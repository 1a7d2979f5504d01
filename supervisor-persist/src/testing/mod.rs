//! Making storage fail, for tests. Not for production: what is set here concerns the whole process.
//!
//! ```
//! use supervisor_persist::testing::{FaultPlan, How};
//!
//! # let directory = tempfile::tempdir()?;
//! let plan = FaultPlan::watch(directory.path())?;
//! plan.arm(1, How::Persistent);
//! // … everything the store writes below the directory fails from now on …
//! plan.disarm();
//! # Ok::<(), std::io::Error>(())
//! ```

pub(crate) mod points;

pub use points::{FaultPlan, How, Op};
