package utilization

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/balancer/load"
	"sluice/test/verify"
)

// machine returns files with texts.
func machine(texts map[string]string) fstest.MapFS {
	files := make(fstest.MapFS)
	for name, text := range texts {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

const (
	controllers = cgroups + "/cgroup.controllers"
	here        = cgroups + "/a.slice/b.service"
)

// service has process 7 alone in a cgroup of version 2, which has half a CPU.
func service() fstest.MapFS {
	return machine(map[string]string{
		controllers:                            "cpu memory\n",
		cgroups + "/cpu.max":                   "800000 100000\n",
		"proc/7/cgroup":                        "0::/a.slice/b.service\n",
		here + "/cgroup.procs":                 "7\n",
		here + "/cpu.stat":                     "usage_usec 1000000\nuser_usec 1\n",
		here + "/cpu.max":                      "max 100000\n",
		here + "/memory.max":                   "max\n",
		here + "/memory.current":               "300\n",
		cgroups + "/a.slice/cpu.max":           "50000 100000\n",
		cgroups + "/a.slice/memory.max":        "1000\n",
		cgroups + "/a.slice/memory.current":    "250\n",
		cgroups + "/a.slice/memory.high":       "1\n",
		"proc/7/stat":                          stat("sluice", 100, 0, 0, 0),
		"proc/7/task/7/children":               "",
		"proc/7/task/8/children":               "",
		"proc/8/task/8/children":               "9 ",
		"proc/8/stat":                          stat("a) R (b\n", 50, 0, 0, 0),
		"proc/9/task/9/children":               "7 9 x -1 99999999999999999999 10",
		"proc/9/stat":                          stat("c", 0, 0, 20, 5),
		"proc/1/task/1/children":               "7",
		"proc/1/stat":                          stat("init", 1e6, 0, 0, 0),
		"sys/fs/cgroup/cgroup.subtree_control": "cpu",
	})
}

func stat(name string, ticks ...int) string {
	return fmt.Sprintf("7 (%s) S 1 7 7 0 -1 4194304 1 2 3 4 %s 20 0 1 0", name, strings.Trim(fmt.Sprint(ticks), "[]"))
}

// The cgroup tells the CPU time of a process that is alone in it, and the limits of those above hold too.
func TestReportOfACgroup(t *testing.T) {
	files, at := service(), time.Now()
	m := verify.Result(New(files, 7, at)).Must(t)
	verify.Equal(t, m.Source(), "/"+here, "source")
	verify.Equal(t, m.Report(at.Add(period-1)), "", "report before a measurement")
	files[here+"/cpu.stat"].Data = []byte("user_usec 1\nusage_usec 1500000\n")
	verify.Equal(t, m.Report(at.Add(2*time.Second)), "TEXT cpu_utilization=0.5000,mem_utilization=0.2500", "half of half a CPU")
	verify.Equal(t, load.Utilization([]byte(m.Report(at.Add(2*time.Second)))), .5, "what sluice reads")
	files[here+"/cpu.stat"].Data = []byte("usage_usec 1600000\n")
	verify.Equal(t, m.Report(at.Add(3*time.Second-1)), "TEXT cpu_utilization=0.5000,mem_utilization=0.2500", "a second has not passed")
	verify.Equal(t, m.Report(at.Add(3*time.Second)), "TEXT cpu_utilization=0.2000,mem_utilization=0.2500", "after a second")
	verify.Equal(t, m.Report(at.Add(9*time.Second)), "TEXT cpu_utilization=0.0010,mem_utilization=0.2500", "idle")
	files[cgroups+"/a.slice/cpu.max"].Data = []byte("max 100000\n")
	files[here+"/cpu.stat"].Data = []byte(fmt.Sprintf("usage_usec %d\n", 1600000+1000000*runtime.NumCPU()))
	verify.Equal(t, m.Report(at.Add(10*time.Second)), "TEXT cpu_utilization=1.0000,mem_utilization=0.2500", "all CPUs")
	files[here+"/cpu.stat"].Data = []byte("usage_usec none\n")
	verify.Equal(t, m.Report(at.Add(11*time.Second)), "", "a file that does not tell it")
}

// Without a cgroup of its own, /proc tells the CPU time of the process and of what it has started, also of what has ended.
func TestReportOfAProcessTree(t *testing.T) {
	for why, change := range map[string]func(fstest.MapFS){
		"shared":          func(files fstest.MapFS) { files[here+"/cgroup.procs"].Data = []byte("7\n8\n") },
		"another's":       func(files fstest.MapFS) { files[here+"/cgroup.procs"].Data = []byte("0\n") },
		"version 1":       func(files fstest.MapFS) { delete(files, controllers) },
		"not visible":     func(files fstest.MapFS) { files["proc/7/cgroup"].Data = []byte("0::/../../b\n") },
		"version 1 and 2": func(files fstest.MapFS) { files["proc/7/cgroup"].Data = []byte("4:memory:/a\n0::/\n") },
		"no name":         func(files fstest.MapFS) { files["proc/7/cgroup"].Data = []byte("0::") },
		"out of the directory": func(files fstest.MapFS) {
			files["proc/7/cgroup"].Data = []byte("0::/../../../proc/7\n")
			files["proc/7/cgroup.procs"] = &fstest.MapFile{Data: []byte("7\n")}
		},
	} {
		files, at := service(), time.Now()
		change(files)
		m := verify.Result(New(files, 7, at)).Must(t)
		verify.Equal(t, m.Source(), "/proc", "%s: source", why)
		verify.Equal(t, m.used, time.Second, "%s: time", why)
		files["proc/7/task/7/children"].Data = []byte("8 ")
		m.Report(at.Add(2 * time.Second))
		verify.Equal(t, m.used, 1750*time.Millisecond, "%s: time with children", why)
		before := m.utilization
		files["proc/7/task/7/children"].Data = nil // they have gone, and nobody has waited for them
		m.Report(at.Add(4 * time.Second))
		verify.That(t, before > 0 && m.utilization == before && m.used == time.Second, "%s: %v, %v after %v", why, m.utilization, m.used, before)
	}
}

func TestNewWithoutTheFiles(t *testing.T) {
	for _, missing := range []string{"proc/7/stat", "proc/7/task/7/children"} {
		files := service()
		delete(files, controllers)
		delete(files, missing)
		delete(files, "proc/7/task/8/children")
		_, err := New(files, 7, time.Now())
		verify.That(t, err != nil && strings.Contains(err.Error(), "which needs Linux: /proc/7/"), "without %s: %v", missing, err)
	}
	_, err := New(machine(nil), 7, time.Now())
	verify.That(t, err != nil, "no error without files")
}

func TestParse(t *testing.T) {
	for text, want := range map[string]float64{
		"50000 100000\n": .5, "200000 100000": 2, "max 100000\n": 0, "": 0, "50000": 0, "0 100000": 0, "1 0": 0, "-5 100000": 0,
		"5e4 100000": 0, "99999999999999999999 1": 0, "50000 100000 1": 0, "\x00\xff": 0,
	} {
		cpus, ok := quota(text)
		verify.That(t, ok == (want > 0) && (!ok || cpus == want), "quota of %q: %v, %v", text, cpus, ok)
	}
	for text, want := range map[string]time.Duration{
		"usage_usec 5\nuser_usec 7": 5 * time.Microsecond, "user_usec 7\nusage_usec 5\n": 5 * time.Microsecond,
		"": -1, "usage_usec": -1, "usage_usec \n": -1, "usage_usec -5": -1, "usage_usec 1 2": -1, "usage_usec 90000000999999999": -1, "xusage_usec 5": -1,
	} {
		used, ok := cgroupTime(text)
		verify.That(t, ok == (want >= 0) && (!ok || used == want), "time of %q: %v, %v", text, used, ok)
	}
	for text, want := range map[string]time.Duration{
		stat("a", 1, 2, 3, 4): 100 * time.Millisecond, stat(") 9 9 (", 1, 2, 3, 4): 100 * time.Millisecond,
		"": -1, "7": -1, "7 (a": -1, "7 (a)": -1, stat("a", 1, 2, 3) + ")": -1, stat("a", 1, -2, 3, 4): -1, "7 (a) S 1 7 7 0 -1 4194304 1 2 3 4 1 2 3": -1,
	} {
		used, ok := statTime(text)
		verify.That(t, ok == (want >= 0) && (!ok || used == want), "time of %q: %v, %v", text, used, ok)
	}
	for texts, want := range map[[2]string]float64{
		{"250\n", "1000\n"}: .25, {"2000", "1000"}: 1, {"250", "max"}: 0, {"250", "0"}: 0, {"", "1000"}: 0, {"-1", "1000"}: 0, {"250", ""}: 0,
	} {
		verify.Equal(t, share(texts[0], texts[1]), want, "share of %q", texts)
	}
}

// Whatever the files contain, a report is one that sluice reads, or none.
func TestReportOfAnyBytes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		files, at := service(), time.Now()
		if random.IntN(2) == 0 {
			delete(files, controllers)
		}
		m, err := New(files, 7, at)
		for step := range 4 {
			if m != nil && err == nil {
				report := m.Report(at.Add(time.Duration(step) * 2 * time.Second))
				verify.That(t, report == "" || load.Utilization([]byte(report)) > 0, "report %q", report)
			}
			for _, file := range files {
				for range random.IntN(3) {
					if n := len(file.Data); n > 0 {
						file.Data[random.IntN(n)] = "0159 \n(-\xff"[random.IntN(9)]
					}
				}
				if random.IntN(10) == 0 {
					file.Data = file.Data[:random.IntN(len(file.Data)+1)]
				}
			}
		}
	}
}

// A limit of next to nothing leads to no report that nobody believes.
func TestReportIsBounded(t *testing.T) {
	files, at := service(), time.Now()
	m := verify.Result(New(files, 7, at)).Must(t)
	for _, file := range files {
		file.Data = bytes.ReplaceAll(file.Data, []byte("usage_usec "), []byte("usage_usec 90000000"))
	}
	report := m.Report(at.Add(2 * time.Second))
	verify.That(t, load.Utilization([]byte(report)) == most, "report %q", report)
}

// The address for the load answers checks as the app does.
func TestHandler(t *testing.T) {
	m := verify.Result(New(service(), 7, time.Now().Add(-time.Minute))).Must(t)
	for text, want := range map[string]int{"": 200, "connection refused": 503} {
		answer := httptest.NewRecorder()
		m.Handler(func(context.Context) error {
			if text == "" {
				return nil
			}
			return errors.New(text)
		}).ServeHTTP(answer, httptest.NewRequest("GET", "/health", nil))
		verify.Equal(t, answer.Code, want, "status")
		verify.Equal(t, strings.TrimSpace(answer.Body.String()), text, "body")
		verify.Equal(t, answer.Header().Get(load.Field), "TEXT cpu_utilization=0.0010,mem_utilization=0.2500", "report")
	}
}
