// Many replicas' files as one.

#include "server/experiments/storage/merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "server/experiments/storage/accumulate.h"
#include "server/experiments/storage/experiment_file.h"

namespace swaa::server {
namespace {

// One file, held at one moment, with what decides how the others are read.
struct Source {
  OpenedExperimentFile file;
  std::unique_ptr<SqliteTransaction> transaction;
  ExperimentData head;  // revisions and stops

  const std::string& instance_id() const { return file.identity.instance_id; }
};

struct FirstStop {
  const Source* source;
  StopRecord record;
};
using FirstStops = std::map<StopKey, FirstStop>;

absl::StatusOr<Source> OpenSource(const std::string& path, std::optional<uint64_t> revision) {
  Source source;
  SWAA_ASSIGN_OR_RETURN(source.file, OpenExperimentFile(path));
  SqliteDatabase* const database = source.file.database.get();
  SWAA_ASSIGN_OR_RETURN(source.transaction,
                        SqliteTransaction::Begin(database, SqliteTransaction::Kind::kRead));
  SWAA_RETURN_IF_ERROR(ReadRevisionsAndStops(revision, database, &source.head));
  return source;
}

absl::Status CheckAddable(const Source& a, const Source& b) {
  const std::string& path_a = a.file.database->path();
  const std::string& path_b = b.file.database->path();
  if (a.instance_id() == b.instance_id()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_a, " and ", path_b, " are both of replica ", a.instance_id(),
                     ", which would count twice; give one file a replica"));
  }
  if (a.file.identity.key_fingerprint != b.file.identity.key_fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_a, " hides units with key ", a.file.identity.key_fingerprint, ", ",
                     path_b, " with ", b.file.identity.key_fingerprint,
                     ", so a unit of both could not be told; give all replicas the same key file"));
  }
  return absl::OkStatus();
}

// A stop of the arm or of its whole revision, whichever comes first.
std::optional<int64_t> OwnStop(const Source& source, const StopKey& key) {
  std::optional<int64_t> earliest;
  for (const int32_t arm : {key.arm, kAllArms}) {
    const auto stop = source.head.stops.find({key.revision, arm});
    if (stop == source.head.stops.end()) continue;
    earliest = std::min(earliest.value_or(stop->second.at_ms), stop->second.at_ms);
  }
  return earliest;
}

FirstStops FindFirstStops(const std::vector<Source>& sources) {
  FirstStops first;
  for (const Source& source : sources) {
    for (const auto& [key, record] : source.head.stops) {
      const auto [there, is_new] = first.emplace(key, FirstStop{&source, record});
      if (!is_new && record.at_ms < there->second.record.at_ms) there->second = {&source, record};
    }
  }
  return first;
}

bool WentOn(const Source& source, const StopKey& key, const FirstStop& first) {
  if (!source.head.revisions.contains(key.revision)) return false;
  const std::optional<int64_t> own = OwnStop(source, key);
  return !own.has_value() || *own - first.record.at_ms > kOneStopMilliseconds;
}

ArmCuts CutsOf(const Source& source, const FirstStops& stops) {
  ArmCuts cuts;
  for (const auto& [key, first] : stops) {
    if (WentOn(source, key, first)) cuts[key] = first.record.at_ms;
  }
  return cuts;
}

// "experiment chat, arm window", as far as the configuration tells.
std::string NameOf(const StopKey& key, const ExperimentData& data) {
  const auto revision = data.revisions.find(key.revision);
  std::string name = absl::StrCat("revision ", absl::Hex(key.revision, absl::kZeroPad16));
  std::string arm = absl::StrCat("arm ", key.arm);
  if (revision != data.revisions.end()) {
    name = absl::StrCat("experiment ", revision->second.experiment_id);
    const auto config = nlohmann::json::parse(revision->second.config_json, nullptr, false);
    const nlohmann::json::json_pointer where(absl::StrCat("/experiment/arms/", key.arm, "/name"));
    if (key.arm >= 0 && config.is_object() && config.contains(where) &&
        config.at(where).is_string()) {
      arm = absl::StrCat("arm ", config.at(where).get<std::string>());
    }
  }
  return key.arm == kAllArms ? name : absl::StrCat(name, ", ", arm);
}

std::string TimeText(int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

void WarnOfStops(const FirstStops& stops, const std::vector<Source>& sources,
                 ExperimentData* data) {
  for (const auto& [key, first] : stops) {
    std::vector<std::string> others;
    for (const Source& source : sources) {
      if (!WentOn(source, key, first)) continue;
      const std::optional<int64_t> own = OwnStop(source, key);
      others.push_back(own.has_value()
                           ? absl::StrCat(source.instance_id(), " (until ", TimeText(*own), ")")
                           : source.instance_id());
    }
    if (others.empty()) continue;
    data->warnings.push_back(absl::StrCat(
        NameOf(key, *data), " was stopped on replica ", first.source->instance_id(), " at ",
        TimeText(first.record.at_ms), " (", first.record.reason, ") but went on on ",
        absl::StrJoin(others, ", "), ": of theirs the whole days (UTC) before that are counted"));
  }
}

void MergeRevisions(const ExperimentData& part, ExperimentData* all,
                    std::map<uint64_t, int>* replicas) {
  for (const auto& [key, more] : part.revisions) {
    ++(*replicas)[key];
    const auto [there, is_new] = all->revisions.emplace(key, more);
    if (is_new) continue;
    RevisionRecord& known = there->second;
    // At the same moment the greater text, so that the order of files is none of the result's.
    if (std::pair(more.started_ms, more.config_json) >
        std::pair(known.started_ms, known.config_json)) {
      known.config_json = more.config_json;
    }
    known.started_ms = std::min(known.started_ms, more.started_ms);
    const bool in_force = known.ended_ms == 0 || more.ended_ms == 0;
    known.ended_ms = in_force ? 0 : std::max(known.ended_ms, more.ended_ms);
    known.min_log_sample_ratio_p =
        std::min(known.min_log_sample_ratio_p, more.min_log_sample_ratio_p);
  }
}

// Outcomes that differ between replicas, and units in another arm on another one.
struct Conflicts {
  int64_t outcomes = 0;
  std::string example;
  int64_t units = 0;
};

void MergeOutcomes(std::map<OutcomeKey, OutcomeRecord> part, ExperimentData* all,
                   Conflicts* conflicts) {
  all->outcomes.merge(part);  // leaves those that are there already
  for (const auto& [key, record] : part) {
    OutcomeRecord& known = all->outcomes.at(key);
    if (record.value != known.value) {
      if (conflicts->outcomes++ == 0) {
        conflicts->example =
            absl::StrCat(absl::CHexEscape(key.metric), " of ", absl::CHexEscape(key.request_id));
      }
    }
    if (std::pair(record.at_ms, record.value) < std::pair(known.at_ms, known.value)) known = record;
  }
}

// A switchback's units meet both arms, everywhere.
std::set<uint64_t> Switchbacks(const ExperimentData& data) {
  std::set<uint64_t> revisions;
  for (const auto& [revision, record] : data.revisions) {
    if (record.config_json.find("EXPERIMENT_DESIGN_SWITCHBACK") != std::string::npos) {
      revisions.insert(revision);
    }
  }
  return revisions;
}

void CountUnitConflicts(const Observations& part, const Observations& all,
                        const std::set<uint64_t>& switchbacks, Conflicts* conflicts) {
  for (const auto& [key, unit] : part.units) {
    const auto known = all.units.find(key);
    const bool differ = known != all.units.end() && known->second.arm != unit.arm;
    if (differ && !switchbacks.contains(key.revision)) ++conflicts->units;
  }
}

void WarnOfConflicts(const Conflicts& conflicts, ExperimentData* data) {
  if (conflicts.outcomes > 0) {
    data->warnings.push_back(absl::StrCat(conflicts.outcomes, " outcomes differ between replicas (",
                                          conflicts.example,
                                          " is one); of each the earliest counts"));
  }
  if (conflicts.units > 0) {
    data->warnings.push_back(
        absl::StrCat(conflicts.units,
                     " units were in different arms on different replicas; their "
                     "configurations differed"));
  }
}

}  // namespace

absl::StatusOr<ExperimentData> MergeExperimentFiles(const std::vector<std::string>& paths,
                                                    std::optional<uint64_t> revision) {
  if (paths.empty()) return absl::InvalidArgumentError("no file of experiments; name at least one");
  std::vector<Source> sources;
  for (const std::string& path : paths) {
    SWAA_ASSIGN_OR_RETURN(Source source, OpenSource(path, revision));
    for (const Source& other : sources) SWAA_RETURN_IF_ERROR(CheckAddable(other, source));
    sources.push_back(std::move(source));
  }
  const FirstStops stops = FindFirstStops(sources);
  ExperimentData all;
  std::map<uint64_t, int> replicas;
  Conflicts conflicts;
  for (const Source& source : sources) {
    SWAA_ASSIGN_OR_RETURN(ExperimentData part, ReadExperimentData(revision, CutsOf(source, stops),
                                                                  source.file.database.get()));
    CountUnitConflicts(part.observations, all.observations, Switchbacks(part), &conflicts);
    Accumulate(part.observations, &all.observations);
    MergeOutcomes(std::move(part.outcomes), &all, &conflicts);
    MergeRevisions(part, &all, &replicas);
    all.instance_ids.push_back(source.instance_id());
  }
  for (const auto& [key, first] : stops) all.stops[key] = first.record;
  for (auto& [key, record] : all.revisions) {
    record.min_log_sample_ratio_p =
        std::min(0.0, record.min_log_sample_ratio_p + std::log(replicas.at(key)));
  }
  WarnOfStops(stops, sources, &all);
  WarnOfConflicts(conflicts, &all);
  return all;
}

}  // namespace swaa::server
