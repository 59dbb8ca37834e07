//! S3-FIFO (Yang and others, SOSP 2023): a small queue for the new, a main queue for
//! those read again, and the names of those who left the small one.

use crate::cache::{Cache, Object};
use std::collections::{HashMap, VecDeque};

/// Most readings that are counted.
const MOST: u8 = 3;

pub(crate) struct S3Fifo {
    space: usize,
    small_space: usize,
    small: VecDeque<Object>,
    main: VecDeque<Object>,
    /// Readings since it came, of who is in a queue.
    reads: HashMap<Object, u8>,
    ghosts: VecDeque<(Object, u64)>,
    /// When a ghost came, so that one that was called back is not taken for a new one.
    ghost_since: HashMap<Object, u64>,
    time: u64,
}

impl S3Fifo {
    pub(crate) fn new(space: usize) -> Self {
        Self {
            space,
            small_space: space / 10,
            small: VecDeque::new(),
            main: VecDeque::new(),
            reads: HashMap::new(),
            ghosts: VecDeque::new(),
            ghost_since: HashMap::new(),
            time: 0,
        }
    }

    fn evict(&mut self) {
        while self.reads.len() >= self.space {
            match self.small.len() >= self.small_space.max(1) {
                true => self.evict_small(),
                false => self.evict_main(),
            }
        }
    }

    fn evict_small(&mut self) {
        while let Some(object) = self.small.pop_front() {
            if self.reads.get(&object).is_some_and(|reads| *reads > 1) {
                self.reads.insert(object, 0);
                self.main.push_back(object);
                continue;
            }
            self.reads.remove(&object);
            self.remember(object);
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(object) = self.main.pop_front() {
            match self.reads.get_mut(&object) {
                Some(reads) if *reads > 0 => {
                    *reads -= 1;
                    self.main.push_back(object);
                }
                _ => {
                    self.reads.remove(&object);
                    return;
                }
            }
        }
    }

    /// As many ghosts as the main queue has room for.
    fn remember(&mut self, object: Object) {
        self.ghosts.push_back((object, self.time));
        self.ghost_since.insert(object, self.time);
        while self.ghosts.len() > self.space - self.small_space {
            let Some((oldest, since)) = self.ghosts.pop_front() else { break };
            if self.ghost_since.get(&oldest) == Some(&since) {
                self.ghost_since.remove(&oldest);
            }
        }
    }
}

impl Cache for S3Fifo {
    fn read(&mut self, object: Object) -> bool {
        self.time += 1;
        if let Some(reads) = self.reads.get_mut(&object) {
            *reads = (*reads + 1).min(MOST);
            return true;
        }
        self.evict();
        match self.ghost_since.remove(&object) {
            Some(_) => self.main.push_back(object),
            None => self.small.push_back(object),
        }
        self.reads.insert(object, 0);
        false
    }
}
