//! The only place with `unsafe`: a layer between SQLite and the system's files that fails when a test asks for it.
//! Nothing of it is in a production build.

pub(crate) mod fault_vfs;
