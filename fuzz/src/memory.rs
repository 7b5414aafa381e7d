//! How much memory one input takes: a global allocator that counts the bytes in use by each
//! thread, and the most that there were.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes in use by this thread since [`measure`] began, and the most so far. What is freed by
    /// another thread than took it would distort both: targets start no threads.
    static IN_USE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

fn took(bytes: usize) {
    // A thread that is ending has no cell any more, and is not measured.
    let _ = IN_USE.try_with(|cell| {
        let (now, most) = cell.get();
        let now = now.saturating_add(bytes);
        cell.set((now, most.max(now)));
    });
}

fn gave_back(bytes: usize) {
    let _ = IN_USE.try_with(|cell| {
        let (now, most) = cell.get();
        cell.set((now.saturating_sub(bytes), most));
    });
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature")]
// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave_back(layout.size());
        // SAFETY: the caller's promise about both is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there at once while it moves.
        took(size);
        gave_back(layout.size());
        // SAFETY: the caller's promise about all three is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work` and says how many bytes of it were in use at most.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, usize) {
    IN_USE.with(|cell| cell.set((0, 0)));
    let result = work();
    (result, IN_USE.with(Cell::get).1)
}

#[cfg(test)]
mod tests {
    use super::measure;

    #[test]
    fn the_most_in_use_is_seen_also_when_it_is_gone_again() {
        let (length, most) = measure(|| vec![1_u8; 100_000].len());
        assert_eq!(length, 100_000);
        assert!((100_000..110_000).contains(&most), "{most}");
        let (_, most) = measure(|| 7);
        assert!(most < 1000, "{most}");
    }
}
