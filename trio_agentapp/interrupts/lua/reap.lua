-- REAP -> ms left of the lease; 0 if nobody owns the session; {run, node} of the run that this call has ended
local s = read_session()
if not s.running then return 0 end
if s.exp > now then return s.exp - now end
reap(s)
return { s.run, s.owner or '' }
