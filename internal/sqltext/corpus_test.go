package sqltext

// placeholder
var corpus []described
