// The rows of a server's experiments, written and read.

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/experiments/storage/experiment_file.h"

namespace swaa::server {
namespace {

// Of UnitRecord::arms_seen; a file with others was not written here.
constexpr int64_t kMostArms = 64;

absl::Status WriteSums(const Observations& observations, int64_t day, SqliteDatabase* database) {
  SWAA_ASSIGN_OR_RETURN(
      SqliteStatement add,
      database->Prepare("INSERT INTO sums VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) "
                        "ON CONFLICT DO UPDATE SET n = n + excluded.n, s = s + excluded.s"));
  for (const auto& [key, sum] : observations.sums) {
    SWAA_RETURN_IF_ERROR(add.Run(key.revision, key.arm, std::string_view(key.metric), key.triggered,
                                 key.prompt_class, key.group, key.unit_age, day, sum.count,
                                 sum.sum));
  }
  SWAA_ASSIGN_OR_RETURN(
      SqliteStatement add_pair,
      database->Prepare("INSERT INTO pair VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) "
                        "ON CONFLICT DO UPDATE SET n = n + excluded.n, s = s + excluded.s"));
  for (const auto& [key, sum] : observations.pairs) {
    SWAA_RETURN_IF_ERROR(add_pair.Run(key.revision, std::string_view(key.metric), key.pair, key.arm,
                                      day, sum.count, sum.sum));
  }
  return absl::OkStatus();
}

absl::Status WriteSketches(const Observations& observations, int64_t day,
                           SqliteDatabase* database) {
  SWAA_ASSIGN_OR_RETURN(
      SqliteStatement add,
      database->Prepare("INSERT INTO sketch VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
                        "ON CONFLICT DO UPDATE SET n = n + excluded.n"));
  for (const auto& [key, bins] : observations.sketches) {
    for (const auto& [bin, count] : bins) {
      SWAA_RETURN_IF_ERROR(add.Run(key.revision, key.arm, std::string_view(key.metric),
                                   key.prompt_class, key.group, bin, day, count));
    }
  }
  return absl::OkStatus();
}

// As Unite says.
absl::Status WriteUnits(const Observations& observations, SqliteDatabase* database) {
  SWAA_ASSIGN_OR_RETURN(
      SqliteStatement unite,
      database->Prepare("INSERT INTO unit VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET "
                        "arm = CASE WHEN first_ms = excluded.first_ms THEN min(arm, excluded.arm) "
                        "WHEN first_ms < excluded.first_ms THEN arm ELSE excluded.arm END, "
                        "first_ms = min(first_ms, excluded.first_ms), "
                        "trigger_ms = CASE WHEN trigger_ms = 0 OR excluded.trigger_ms = 0 "
                        "THEN max(trigger_ms, excluded.trigger_ms) "
                        "ELSE min(trigger_ms, excluded.trigger_ms) END, "
                        "arms_seen = arms_seen | excluded.arms_seen"));
  for (const auto& [key, unit] : observations.units) {
    SWAA_RETURN_IF_ERROR(unite.Run(key.revision, key.unit_key, unit.arm, unit.first_ms,
                                   unit.trigger_ms, unit.arms_seen));
  }
  return absl::OkStatus();
}

// Reads one database, each table in one pass.
class Reader {
 public:
  Reader(std::optional<uint64_t> revision, const ArmCuts& cuts, SqliteDatabase* database,
         ExperimentData* data)
      : revision_(revision), cuts_(cuts), database_(*database), data_(*data) {}

  absl::Status ReadRevisions();
  absl::Status ReadStops();
  absl::Status ReadUnits();
  absl::Status ReadSums();
  absl::Status ReadSketches();
  absl::Status ReadPairs();
  absl::Status ReadOutcomes();
  absl::Status ReadDropped();

 private:
  // Calls `take` with the statement at each row of the wanted revision.
  template <typename Take>
  absl::Status ForEachRow(const std::string& select, const Take& take) {
    // By the revision alone where it is known, which begins the tables' keys.
    SWAA_ASSIGN_OR_RETURN(
        SqliteStatement rows,
        database_.Prepare(select + (revision_.has_value() ? " WHERE revision = ?1" : "")));
    if (revision_.has_value()) rows.Bind(*revision_);
    for (;;) {
      SWAA_ASSIGN_OR_RETURN(const bool row, rows.Step());
      if (!row) break;
      take(rows);
    }
    if (!out_of_range_) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("the file is damaged: an arm or a group is out of range (", select,
                     "); restore it from a copy, or begin with a new one"));
  }
  // Notes what no index may be made of.
  int32_t ArmOf(const SqliteStatement& row, int column) {
    return Checked(row.Int(column), 0, kMostArms);
  }
  int32_t Checked(int64_t value, int64_t least, int64_t end) {
    if (value >= least && value < end) return static_cast<int32_t>(value);
    out_of_range_ = true;
    return static_cast<int32_t>(least);
  }
  int64_t CutOf(uint64_t revision, int32_t arm) const {
    int64_t earliest = std::numeric_limits<int64_t>::max();
    for (const int32_t which : {arm, kAllArms}) {
      const auto cut = cuts_.find({revision, which});
      if (cut != cuts_.end()) earliest = std::min(earliest, cut->second);
    }
    return earliest;
  }
  bool DayCounts(uint64_t revision, int32_t arm, int64_t day) const {
    return day < CutOf(revision, arm) / kMillisecondsPerDay;
  }

  const std::optional<uint64_t> revision_;
  const ArmCuts& cuts_;
  SqliteDatabase& database_;
  ExperimentData& data_;
  bool out_of_range_ = false;
};

absl::Status Reader::ReadRevisions() {
  return ForEachRow(
      "SELECT revision, experiment, config, started_ms, ended_ms, srm_min_log_p FROM revision",
      [this](const SqliteStatement& row) {
        data_.revisions[row.Unsigned(0)] = {.experiment_id = row.Text(1),
                                            .config_json = row.Text(2),
                                            .started_ms = row.Int(3),
                                            .ended_ms = row.Int(4),
                                            .min_log_sample_ratio_p = row.Real(5)};
      });
}

absl::Status Reader::ReadStops() {
  return ForEachRow("SELECT revision, arm, at_ms, reason FROM stop",
                    [this](const SqliteStatement& row) {
                      const StopKey key = {row.Unsigned(0), static_cast<int32_t>(row.Int(1))};
                      data_.stops[key] = {.at_ms = row.Int(2), .reason = row.Text(3)};
                    });
}

absl::Status Reader::ReadUnits() {
  return ForEachRow("SELECT revision, unit_key, arm, first_ms, trigger_ms, arms_seen FROM unit",
                    [this](const SqliteStatement& row) {
                      const UnitRecord unit = {.arm = ArmOf(row, 2),
                                               .first_ms = row.Int(3),
                                               .trigger_ms = row.Int(4),
                                               .arms_seen = row.Unsigned(5)};
                      const UnitKey key = {row.Unsigned(0), row.Unsigned(1)};
                      if (unit.first_ms >= CutOf(key.revision, unit.arm)) return;
                      data_.observations.units.emplace_hint(data_.observations.units.end(), key,
                                                            unit);
                    });
}

absl::Status Reader::ReadSums() {
  return ForEachRow("SELECT revision, arm, metric, triggered, class, grp, age, day, n, s FROM sums",
                    [this](const SqliteStatement& row) {
                      const SumKey key = {.revision = row.Unsigned(0),
                                          .arm = ArmOf(row, 1),
                                          .metric = row.Text(2),
                                          .triggered = row.Int(3) != 0,
                                          .prompt_class = static_cast<int32_t>(row.Int(4)),
                                          .group = Checked(row.Int(5), 0, kUnitGroups),
                                          .unit_age = Checked(row.Int(6), 0, kUnitAges)};
                      if (!DayCounts(key.revision, key.arm, row.Int(7))) return;
                      data_.observations.sums[key] += {.count = row.Int(8), .sum = row.Real(9)};
                    });
}

absl::Status Reader::ReadSketches() {
  return ForEachRow("SELECT revision, arm, metric, class, grp64, bin, day, n FROM sketch",
                    [this](const SqliteStatement& row) {
                      const SketchKey key = {.revision = row.Unsigned(0),
                                             .arm = ArmOf(row, 1),
                                             .metric = row.Text(2),
                                             .prompt_class = static_cast<int32_t>(row.Int(3)),
                                             .group = Checked(row.Int(4), 0, kSketchGroups)};
                      if (!DayCounts(key.revision, key.arm, row.Int(6))) return;
                      const auto bin = static_cast<int32_t>(row.Int(5));
                      data_.observations.sketches[key][bin] += row.Int(7);
                    });
}

absl::Status Reader::ReadPairs() {
  return ForEachRow("SELECT revision, metric, pair, arm, day, n, s FROM pair",
                    [this](const SqliteStatement& row) {
                      const PairKey key = {.revision = row.Unsigned(0),
                                           .metric = row.Text(1),
                                           .pair = row.Int(2),
                                           .arm = ArmOf(row, 3)};
                      if (!DayCounts(key.revision, key.arm, row.Int(4))) return;
                      data_.observations.pairs[key] += {.count = row.Int(5), .sum = row.Real(6)};
                    });
}

absl::Status Reader::ReadOutcomes() {
  return ForEachRow(
      "SELECT request_id, metric, value, revision, arm, grp, unit_key, end_ms, triggered, class, "
      "age, at_ms FROM outcome",
      [this](const SqliteStatement& row) {
        const OutcomeScope scope = {.revision = row.Unsigned(3),
                                    .arm = ArmOf(row, 4),
                                    .group = Checked(row.Int(5), 0, kUnitGroups),
                                    .unit_key = row.Unsigned(6),
                                    .end_ms = row.Int(7),
                                    .triggered = row.Int(8) != 0,
                                    .prompt_class = static_cast<int32_t>(row.Int(9)),
                                    .unit_age = Checked(row.Int(10), 0, kUnitAges)};
        if (scope.end_ms >= CutOf(scope.revision, scope.arm)) return;
        data_.outcomes.emplace_hint(
            data_.outcomes.end(), OutcomeKey{row.Text(0), row.Text(1)},
            OutcomeRecord{.value = row.Real(2), .scope = scope, .at_ms = row.Int(11)});
      });
}

absl::Status Reader::ReadDropped() {
  SWAA_ASSIGN_OR_RETURN(SqliteStatement row,
                        database_.Prepare("SELECT v FROM meta WHERE k = 'dropped'"));
  SWAA_ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) data_.observations.dropped = row.Int(0);
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteObservations(const Observations& observations, int64_t now_ms,
                               SqliteDatabase* database) {
  const int64_t day = now_ms / kMillisecondsPerDay;
  SWAA_RETURN_IF_ERROR(WriteSums(observations, day, database));
  SWAA_RETURN_IF_ERROR(WriteSketches(observations, day, database));
  SWAA_RETURN_IF_ERROR(WriteUnits(observations, database));
  SWAA_ASSIGN_OR_RETURN(SqliteStatement drop,
                        database->Prepare("UPDATE meta SET v = v + ?1 WHERE k = 'dropped'"));
  return drop.Run(observations.dropped);
}

absl::StatusOr<ExperimentData> ReadExperimentData(std::optional<uint64_t> revision,
                                                  const ArmCuts& cuts, SqliteDatabase* database) {
  ExperimentData data;
  Reader reader(revision, cuts, database, &data);
  SWAA_RETURN_IF_ERROR(reader.ReadRevisions());
  SWAA_RETURN_IF_ERROR(reader.ReadStops());
  SWAA_RETURN_IF_ERROR(reader.ReadUnits());
  SWAA_RETURN_IF_ERROR(reader.ReadSums());
  SWAA_RETURN_IF_ERROR(reader.ReadSketches());
  SWAA_RETURN_IF_ERROR(reader.ReadPairs());
  SWAA_RETURN_IF_ERROR(reader.ReadOutcomes());
  SWAA_RETURN_IF_ERROR(reader.ReadDropped());
  return data;
}

absl::Status ReadRevisionsAndStops(std::optional<uint64_t> revision, SqliteDatabase* database,
                                   ExperimentData* data) {
  const ArmCuts no_cuts;
  Reader reader(revision, no_cuts, database, data);
  SWAA_RETURN_IF_ERROR(reader.ReadRevisions());
  return reader.ReadStops();
}

}  // namespace swaa::server
