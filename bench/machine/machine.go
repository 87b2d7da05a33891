package machine

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine describes where a run took place.
type Machine struct {
	CPU      string   `json:"cpu"`
	CPUs     int      `json:"cpus"`
	Kernel   string   `json:"kernel"`
	Go       string   `json:"go"`
	Versions []string `json:"versions"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s; %s", m.CPU, m.CPUs, m.Kernel, m.Go, strings.Join(m.Versions, "; "))
}

// Describe describes this machine, with the versions of the programs that were
// measured.
func Describe(versions ...string) Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown CPU", Versions: versions}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(b)), "-") // without the build's name
	}
	return m
}
