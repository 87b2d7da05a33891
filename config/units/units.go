// Package units has the types of settings whose text in a configuration has a unit, or must not be
// shown. The packages that use such a setting have it in their options, so that it has one type
// everywhere.
package units

// Ratio is a number, or in a configuration also a percentage: 0.05 and 5% are the same.
type Ratio float64

// Size is a number of bytes. In a configuration it may have a unit: B, KiB, MiB or GiB (powers of
// 1024), KB, MB or GB (powers of 1000).
type Size int64
