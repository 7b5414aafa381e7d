//! pss.
