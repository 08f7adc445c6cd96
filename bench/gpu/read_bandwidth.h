// The rate at which the card reads its memory: the floor of everything that is bound by bytes.

#ifndef SWAA_BENCH_GPU_READ_BANDWIDTH_H_
#define SWAA_BENCH_GPU_READ_BANDWIDTH_H_

namespace swaa::bench {

// Bytes a second of 16-byte loads over a range of 4 GiB; the median of 20 passes.
double MeasureReadBandwidth();

}  // namespace swaa::bench

#endif  // SWAA_BENCH_GPU_READ_BANDWIDTH_H_
