//! sysmgr.
