package load

// A Process is a server whose cost is measured. Those with the same name are added up.
type Process struct {
	Name string
	PID  int
}

// Together is the name of what all the servers' processes used.
const Together = "servers"

// groups are the names of the processes, each once; first Together, if there are several.
func groups(processes []Process) []string {
	var names []string
	seen := map[string]bool{}
	for _, p := range processes {
		if !seen[p.Name] {
			seen[p.Name] = true
			names = append(names, p.Name)
		}
	}
	if len(names) > 1 {
		names = append([]string{Together}, names...)
	}
	return names
}

// readAll reads a value of each process and adds up those of each group.
func readAll[T any](processes []Process, read func(Process) (T, error), add func(T, T) T) (map[string]T, error) {
	sums := map[string]T{}
	for _, p := range processes {
		v, err := read(p)
		if err != nil {
			return nil, err
		}
		sums[p.Name] = add(sums[p.Name], v)
		if p.Name != Together {
			sums[Together] = add(sums[Together], v)
		}
	}
	return sums, nil
}

func cpuOf(processes []Process) (map[string]CPU, error) {
	return readAll(processes, Process.cpu, CPU.plus)
}

func residentOf(processes []Process) (map[string]int64, error) {
	return readAll(processes, Process.resident, func(a, b int64) int64 { return a + b })
}

// memory compares two readings of resident memory.
func memory(processes []Process, before, after map[string]int64, connections int) []Memory {
	var all []Memory
	for _, name := range groups(processes) {
		all = append(all, Memory{
			Name: name, Before: before[name], After: after[name],
			PerConnection: float64(after[name]-before[name]) / float64(connections),
		})
	}
	return all
}
