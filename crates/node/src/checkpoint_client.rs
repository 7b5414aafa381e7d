//! A service's book-keeping of its requests to `pss`.
