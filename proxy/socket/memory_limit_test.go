package socket

import (
	"math"
	"testing"
	"testing/fstest"

	"sluice/test/verify"
)

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	const machine = "MemTotal:        4000 kB\nMemFree:          100 kB\n"
	for name, test := range map[string]struct {
		files map[string]string
		own   int64 // GOMEMLIMIT
		want  int64
	}{
		"nothing is known": {nil, math.MaxInt64, unknownMemory},
		"GOMEMLIMIT":       {map[string]string{"proc/meminfo": machine}, 1_000_000, 1_000_000},
		"the machine":      {map[string]string{"proc/meminfo": machine}, math.MaxInt64, 4000 << 10},
		"a unit": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "0::/system.slice/sluice.service\n",
			"sys/fs/cgroup/system.slice/sluice.service/memory.max": "max\n", "sys/fs/cgroup/system.slice/memory.max": "2000000\n",
		}, math.MaxInt64, 2_000_000},
		"a container with the names of the host": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/memory.max": "3000000\n",
		}, math.MaxInt64, 3_000_000},
		"version 1": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "5:cpu:/a\n4:memory:/a\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000000\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, math.MaxInt64, 1_000_000},
	} {
		files := make(fstest.MapFS)
		for name, text := range test.files {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
		verify.Equal(t, memoryLimit(files, test.own), test.want, "%s", name)
	}
}
