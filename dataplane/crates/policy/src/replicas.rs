//! Which replica owns a quota cell. Every replica ranks all of them by a hash of replica and cell (rendezvous hashing),
//! so that all agree without talking and a replica that comes or goes moves only its own share of the cells.

/// One replica of mixer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name among the replicas.
    pub id: String,
    /// Where its gRPC server listens.
    pub address: String,
}

/// The replicas that are alive, as far as this one knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    own_id: String,
    all: Vec<Replica>,
}

impl Replicas {
    /// `all` may or may not name the replica itself.
    pub fn new(own_id: String, mut all: Vec<Replica>) -> Self {
        all.retain(|replica| replica.id != own_id);
        Replicas { own_id, all }
    }

    /// The others.
    pub fn others(&self) -> &[Replica] {
        &self.all
    }

    /// The owner of a cell when it is another replica.
    pub fn owner(&self, cell: &[u8]) -> Option<&Replica> {
        let own = (rank(&self.own_id, cell), self.own_id.as_str());
        let best = self
            .all
            .iter()
            .map(|replica| ((rank(&replica.id, cell), replica.id.as_str()), replica))
            .max_by_key(|(rank, _)| *rank)?;
        (best.0 > own).then_some(best.1)
    }
}

/// The same on every machine and in every version: FNV-1a over id and cell, mixed by SplitMix64's last step.
fn rank(id: &str, cell: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.bytes().chain([0]).chain(cell.iter().copied()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(own: &str, ids: &[&str]) -> Replicas {
        let all = ids.iter().map(|id| Replica {
            id: (*id).into(),
            address: format!("{id}:9091"),
        });
        Replicas::new(own.into(), all.collect())
    }

    fn owner(own: &str, ids: &[&str], cell: usize) -> String {
        replicas(own, ids)
            .owner(&cell.to_le_bytes())
            .map_or(own.into(), |replica| replica.id.clone())
    }

    #[test]
    fn all_replicas_agree_and_share_evenly() {
        let ids = ["a", "b", "c"];
        let mut counts = std::collections::HashMap::new();
        for cell in 0..3000 {
            let by_a = owner("a", &ids, cell);
            assert!(ids.iter().all(|id| owner(id, &ids, cell) == by_a));
            *counts.entry(by_a).or_insert(0) += 1;
        }
        assert!(
            counts.len() == 3 && counts.values().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_replica_that_goes_moves_only_its_own_cells() {
        for cell in 0..1000 {
            let before = owner("a", &["a", "b", "c"], cell);
            let after = owner("a", &["a", "b"], cell);
            assert!(before == after || before == "c");
        }
    }

    #[test]
    fn alone_it_owns_everything() {
        assert!(replicas("a", &["a"]).owner(b"cell").is_none());
        assert!(Replicas::default().owner(b"cell").is_none());
    }
}
