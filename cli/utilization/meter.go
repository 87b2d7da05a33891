// Package utilization measures how busy a process and all that it starts are, relative to what they may use: by their
// cgroup of version 2, or by /proc. It reports that as backends of gRPC and Envoy do (ORCA).
package utilization

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"runtime"
	"strconv"
	"sync"
	"time"

	"sluice/balancer/load"
)

const (
	// period is the least time that a value is the average of.
	period = time.Second
	// least and most bound the CPU utilization: 0 would mean that none is known, and a limit of next to nothing leads to
	// values that nobody believes.
	least, most = 0.001, 1000
)

// Meter measures a process. Its methods may be called concurrently.
type Meter struct {
	files  fs.FS // of the machine
	pid    int
	cgroup string // "": not visible
	alone  bool   // the cgroup has only the process and what it has started

	mu          sync.Mutex // guards the fields below
	at          time.Time  // of the last measurement
	used        time.Duration
	utilization float64 // between the last two; 0: not known yet
}

// New returns a meter of the process and of all that it is going to start. Files are those of the machine, from its
// root on. The process has not started another one yet: if it is alone in its cgroup, the cgroup tells the CPU time, else /proc.
func New(files fs.FS, pid int, now time.Time) (*Meter, error) {
	m := &Meter{files: files, pid: pid, cgroup: cgroupOf(files, pid), at: now}
	m.alone = m.cgroup != "" && isAlone(files, m.cgroup, pid)
	var err error
	if m.used, err = m.time(); err != nil {
		return nil, fmt.Errorf("the CPU time cannot be read, which needs Linux: %w", err)
	}
	return m, nil
}

// Source names the files that tell the CPU time.
func (m *Meter) Source() string {
	if m.alone {
		return "/" + m.cgroup
	}
	return "/proc"
}

// time returns the CPU time so far.
func (m *Meter) time() (time.Duration, error) {
	if !m.alone {
		return treeTime(m.files, m.pid)
	}
	stat, err := fs.ReadFile(m.files, path.Join(m.cgroup, "cpu.stat"))
	used, ok := cgroupTime(string(stat))
	if !ok {
		return 0, fmt.Errorf("/%s/cpu.stat has no usage_usec: %v", m.cgroup, err)
	}
	return used, nil
}

// Report returns a value of [load.Field]; "": not known yet. It is the average since the last measurement, which is at
// least a second ago when it is measured again: whoever asks now and then gets the average between.
func (m *Meter) Report(now time.Time) string {
	cpus, memory := limits(m.files, m.cgroup, float64(runtime.NumCPU()))
	cpu := m.measure(now, cpus)
	if cpu == 0 {
		return ""
	}
	report := "TEXT cpu_utilization=" + decimal(cpu)
	if memory > 0 {
		report += ",mem_utilization=" + decimal(memory)
	}
	return report
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 4, 64) }

func (m *Meter) measure(now time.Time, cpus float64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	elapsed := now.Sub(m.at)
	if elapsed < period {
		return m.utilization
	}
	used, err := m.time()
	if err != nil {
		return 0
	}
	if used >= m.used { // else processes have gone that nobody has waited for: only their time is missing
		m.utilization = min(max(float64(used-m.used)/float64(elapsed)/cpus, least), most)
	}
	m.at, m.used = now, used
	return m.utilization
}

// Handler answers every request with the report, and with a status that passes checks if works returns nil.
func (m *Meter) Handler(works func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if report := m.Report(time.Now()); report != "" {
			w.Header().Set(load.Field, report)
		}
		if err := works(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}
