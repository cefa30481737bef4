//! Rounds by columns: what a scan hands out instead of rows, so that a question about three columns decodes three.

use std::ops::Range;

use specfleet_engine::device::gate::GateReason;
use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{RoundRecord, Source, UploadCost};
use specfleet_engine::time::{Span, Time};

macro_rules! round_columns {
    (
        every row has { $($variant:ident $field:ident: $type:ty,)* }
        rows that pay have { $($cost:ident $column:ident: $cost_type:ty = $($path:ident).+,)* }
    ) => {
        /// A field of [`RoundRecord`], or of the [`UploadCost`] that a row may have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RoundColumn {
            $(
                #[doc = concat!("[`RoundRecord::", stringify!($field), "`]")]
                $variant,
            )*
            $(
                #[doc = concat!("`", stringify!($($path).+), "` of the row's [`UploadCost`]")]
                $cost,
            )*
        }

        impl RoundColumn {
            /// All columns: those that every row has a value of, then the costs of uploads.
            pub const ALL: &[RoundColumn] = &[$(RoundColumn::$variant,)* $(RoundColumn::$cost,)*];

            /// The costs of uploads.
            pub(crate) const COSTS: &[RoundColumn] = &[$(RoundColumn::$cost,)*];

            /// The column's name: that of its field in [`RoundRows`].
            pub fn name(self) -> &'static str {
                match self {
                    $(RoundColumn::$variant => stringify!($field),)*
                    $(RoundColumn::$cost => stringify!($column),)*
                }
            }
        }

        /// Columns of consecutive rows. One that was not asked for is empty, the others have the same length. Positions
        /// and times are absolute, as in [`RoundRecord`]. Costs are as in [`UploadCost::ZERO`] where no upload was paid
        /// for.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct RoundRows {
            $(
                #[doc = concat!("[`RoundRecord::", stringify!($field), "`] of each row")]
                pub $field: Vec<$type>,
            )*
            /// Whether each row pays for an upload; empty if no column of costs was asked for.
            pub pays: Vec<bool>,
            $(
                #[doc = concat!("`", stringify!($($path).+), "` of each row's [`UploadCost`]")]
                pub $column: Vec<$cost_type>,
            )*
        }

        impl RoundRows {
            /// Row `index` as a record, where all columns were asked for.
            ///
            /// # Panics
            /// If a column is empty or has no such row.
            pub fn record(&self, index: usize) -> RoundRecord {
                let upload = self.pays[index].then(|| {
                    let mut cost = UploadCost::ZERO;
                    $(cost.$($path).+ = self.$column[index];)*
                    cost
                });
                RoundRecord { $($field: self.$field[index],)* upload }
            }

            /// Row `index` as a record; what was not asked for is as in [`RoundRecord::UNKNOWN`], and within the cost of
            /// an upload as in [`UploadCost::ZERO`]. If no cost was asked for, it has none.
            #[inline]
            pub fn partial_record(&self, index: usize) -> RoundRecord {
                // The columns of costs are looked at for the rows that pay only, which are the fewer ones.
                let upload = self.pays.get(index).is_some_and(|pays| *pays).then(|| self.cost(index));
                RoundRecord {
                    $($field: self.$field.get(index).copied().unwrap_or(RoundRecord::UNKNOWN.$field),)*
                    upload,
                }
            }

            /// The costs in row `index`, whether it pays or not.
            #[inline]
            pub(crate) fn cost(&self, index: usize) -> UploadCost {
                let mut cost = UploadCost::ZERO;
                $(cost.$($path).+ = self.$column.get(index).copied().unwrap_or(cost.$($path).+);)*
                cost
            }

            /// Empties all columns and keeps their memory.
            pub(crate) fn clear(&mut self) {
                $(self.$field.clear();)*
                self.pays.clear();
                $(self.$column.clear();)*
            }
        }
    };
}

round_columns! {
    every row has {
        Position position: u32,
        Token token: u32,
        Draft draft: u32,
        Rejections rejections: u32,
        Source source: Source,
        Reason reason: GateReason,
        Uncertainty uncertainty: f32,
        Importance importance: f32,
        ImportanceThreshold importance_threshold: f32,
        DraftProbability draft_probability: f32,
        Price price: f32,
        CommittedAt committed_at: Time,
        Waiting waiting: Span,
    }
    rows that pay have {
        Attempts attempts: u32 = attempts,
        UplinkBits uplink_bits: u64 = uplink_bits,
        UplinkBytes uplink_bytes: u32 = uplink_bytes,
        DownlinkBytes downlink_bytes: u32 = downlink_bytes,
        SnrDb snr_db: f32 = snr_db,
        Uplink uplink: Span = uplink,
        Downlink downlink: Span = downlink,
        Queue queue: Span = verify.queue_wait,
        Batch batch: Span = verify.batch_wait,
        Compute compute: Span = verify.compute,
        Work work: u32 = verify.fed_tokens,
        CloudNanojoules cloud_nanojoules: u64 = verify.nanojoules,
        CloudPaperNanojoules cloud_paper_nanojoules: u64 = verify.paper_nanojoules,
    }
}

/// Consecutive rounds of one generation within a [`RoundChunk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundPiece {
    pub id: GenerationId,
    /// The device that ran it.
    pub device: DeviceId,
    /// Index of the first of them among the generation's rounds. A generation's pieces follow each other in a scan, with
    /// those of others between them.
    pub first: u32,
    /// Which rows of the chunk.
    pub range: Range<usize>,
    /// Whether the generation was closed. The rounds of one that was not say what happened, but not all of it.
    pub closed: bool,
}

/// One chunk of rounds as a scan hands it out: every row lies in one piece.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundChunk {
    /// The pieces, in the order of the rows.
    pub pieces: Vec<RoundPiece>,
    pub rows: RoundRows,
}

impl RoundChunk {
    /// Number of rows, whichever columns were asked for.
    pub fn len(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.range.end)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A set of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Projection(u32);

impl Projection {
    pub(crate) const ALL: Projection = Projection(u32::MAX);

    pub(crate) fn new(columns: &[RoundColumn]) -> Projection {
        Projection(columns.iter().fold(0, |set, column| set | 1 << *column as u32))
    }

    pub(crate) fn has(self, column: RoundColumn) -> bool {
        self.0 & 1 << column as u32 != 0
    }

    /// The set with the columns that decoding it needs: which rows pay for an upload is known from who wrote the token.
    pub(crate) fn with_needed(self) -> Projection {
        let first = RoundColumn::CommittedAt as u32;
        // Times and costs stand behind everything else.
        if self.0 >> first == 0 { self } else { Projection(self.0 | 1 << RoundColumn::Source as u32) }
    }

    /// Whether one of these is in the set.
    pub(crate) fn has_any(self, columns: &[RoundColumn]) -> bool {
        self.0 & Projection::new(columns).0 != 0
    }
}
