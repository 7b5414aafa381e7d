//! The targets: one for each decoder of bytes that this process did not write itself.

mod heartbeat;
mod messages;
mod state;
mod text;

use rand::rngs::StdRng;

/// What serde may set aside for a sequence before it has seen its items (1 MiB), three levels deep,
/// and room for the values themselves of the largest input that is tried.
const MESSAGE_MEMORY_BYTES: usize = 4 * 1024 * 1024;

/// Decodes an input.
pub type Run = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;
/// Makes valid inputs.
pub type Seed = Box<dyn Fn(&mut StdRng) -> Vec<u8> + Send + Sync>;

/// One decoder and its properties.
pub struct Target {
    /// Name on the command line, and of its folder in the corpus.
    pub name: &'static str,
    /// Makes a valid input.
    pub seed: Seed,
    /// Decodes; says whether the input was accepted.
    ///
    /// Panics when a property does not hold.
    pub run: Run,
    /// Makes lengths and checksums right again, so that a change gets past them.
    pub repair: Option<fn(&mut [u8])>,
    /// Most memory that one input may take.
    pub memory_bytes: usize,
    /// Pieces that mean something to it.
    pub words: &'static [&'static str],
}

impl core::fmt::Debug for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Target({})", self.name)
    }
}

/// All of them.
#[must_use]
pub fn targets() -> Vec<Target> {
    let mut all = messages::targets();
    all.extend(heartbeat::targets());
    all.extend(state::targets());
    all.extend(text::targets());
    all
}

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    targets().into_iter().find(|target| target.name == name)
}
