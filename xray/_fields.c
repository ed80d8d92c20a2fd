/* The fields of a list of dicts, column by column, as msgpack: one pass over the candidates, on the caller's thread.
 *
 * This does what xray/capture/snapshot.py and the worker do together, in less time. It is optional: where it was not
 * built, the package works without it. It takes only what cannot run code of the user (exact lists, tuples and dicts,
 * names and values of built-in types); for anything else it says None, and the caller goes the general way.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define MAX_DEPTH 8 /* of lists and dicts in one another; a cycle ends there too */

enum { TAKEN = 0, NOT_OURS = 1, FAILED = -1 };

/* A column under way: a bytes object that is written into before anybody else sees it. */
typedef struct {
    PyObject *bytes;
    Py_ssize_t used;
} Column;

static int
make_room(Column *column, Py_ssize_t wanted)
{
    Py_ssize_t size = PyBytes_GET_SIZE(column->bytes);
    if (size - column->used >= wanted) {
        return 0;
    }
    if (wanted > PY_SSIZE_T_MAX / 2 - size) {
        PyErr_NoMemory();
        return -1;
    }
    size += size > wanted ? size : wanted;
    return _PyBytes_Resize(&column->bytes, size);
}

static void
write_number(unsigned char *to, unsigned long long number, int size)
{
    for (int place = size - 1; place >= 0; place--) {
        to[place] = (unsigned char)number;
        number >>= 8;
    }
}

static int
write_text(Column *column, PyObject *value)
{
    const char *text;
    Py_ssize_t size;
    if (PyUnicode_IS_COMPACT_ASCII(value)) {
        text = (const char *)PyUnicode_DATA(value);
        size = PyUnicode_GET_LENGTH(value);
    }
    else {
        text = PyUnicode_AsUTF8AndSize(value, &size);
        if (text == NULL) { /* a lone surrogate */
            PyErr_Clear();
            return NOT_OURS;
        }
    }
    if ((unsigned long long)size > 0xffffffffULL) {
        return NOT_OURS;
    }
    if (make_room(column, size + 5) < 0) {
        return FAILED;
    }
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(column->bytes) + column->used;
    int head;
    if (size < 32) {
        to[0] = (unsigned char)(0xa0 | size);
        head = 1;
    }
    else if (size < 256) {
        to[0] = 0xd9;
        to[1] = (unsigned char)size;
        head = 2;
    }
    else if (size < 65536) {
        to[0] = 0xda;
        write_number(to + 1, (unsigned long long)size, 2);
        head = 3;
    }
    else {
        to[0] = 0xdb;
        write_number(to + 1, (unsigned long long)size, 4);
        head = 5;
    }
    memcpy(to + head, text, (size_t)size);
    column->used += head + size;
    return TAKEN;
}

static int
write_integer(Column *column, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) {
        return NOT_OURS;
    }
    if (make_room(column, 9) < 0) {
        return FAILED;
    }
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(column->bytes) + column->used;
    if (number >= -32 && number < 128) {
        to[0] = (unsigned char)number;
        column->used += 1;
    }
    else if (number < 0) {
        to[0] = 0xd3;
        write_number(to + 1, (unsigned long long)number, 8);
        column->used += 9;
    }
    else if (number <= 0xffff) {
        to[0] = 0xcd;
        write_number(to + 1, (unsigned long long)number, 2);
        column->used += 3;
    }
    else if (number <= 0xffffffffLL) {
        to[0] = 0xce;
        write_number(to + 1, (unsigned long long)number, 4);
        column->used += 5;
    }
    else {
        to[0] = 0xcf;
        write_number(to + 1, (unsigned long long)number, 8);
        column->used += 9;
    }
    return TAKEN;
}

static int
write_head(Column *column, Py_ssize_t size, unsigned char small, unsigned char large)
{
    if (size > 0x7fffffff) {
        return NOT_OURS;
    }
    if (make_room(column, 5) < 0) {
        return FAILED;
    }
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(column->bytes) + column->used;
    if (size < 16) {
        to[0] = (unsigned char)(small | size);
        column->used += 1;
    }
    else {
        to[0] = large;
        write_number(to + 1, (unsigned long long)size, 4);
        column->used += 5;
    }
    return TAKEN;
}

static int write_value(Column *column, PyObject *value, int depth);

/* Nothing below runs code of the user, so that lists and dicts stay as they are while they are gone through. */
static int
write_list(Column *column, PyObject *values, int depth)
{
    Py_ssize_t size = PySequence_Fast_GET_SIZE(values);
    int outcome = write_head(column, size, 0x90, 0xdd);
    for (Py_ssize_t place = 0; outcome == TAKEN && place < size; place++) {
        outcome = write_value(column, PySequence_Fast_GET_ITEM(values, place), depth + 1);
    }
    return outcome;
}

static int
write_dict(Column *column, PyObject *values, int depth)
{
    Py_ssize_t position = 0;
    PyObject *key, *value;
    int outcome = write_head(column, PyDict_GET_SIZE(values), 0x80, 0xdf);
    while (outcome == TAKEN && PyDict_Next(values, &position, &key, &value)) {
        outcome = PyUnicode_CheckExact(key) ? write_text(column, key) : NOT_OURS;
        if (outcome == TAKEN) {
            outcome = write_value(column, value, depth + 1);
        }
    }
    return outcome;
}

static int
write_value(Column *column, PyObject *value, int depth)
{
    if (PyUnicode_CheckExact(value)) {
        return write_text(column, value);
    }
    if (PyFloat_CheckExact(value)) {
        if (make_room(column, 9) < 0) {
            return FAILED;
        }
        double number = PyFloat_AS_DOUBLE(value);
        unsigned long long bits;
        memcpy(&bits, &number, sizeof bits);
        unsigned char *to = (unsigned char *)PyBytes_AS_STRING(column->bytes) + column->used;
        to[0] = 0xcb;
        write_number(to + 1, bits, 8);
        column->used += 9;
        return TAKEN;
    }
    if (PyLong_CheckExact(value)) {
        return write_integer(column, value);
    }
    if (value == Py_None || value == Py_True || value == Py_False) {
        if (make_room(column, 1) < 0) {
            return FAILED;
        }
        PyBytes_AS_STRING(column->bytes)[column->used++] =
            (char)(value == Py_None ? 0xc0 : value == Py_True ? 0xc3 : 0xc2);
        return TAKEN;
    }
    if (depth < MAX_DEPTH) {
        if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
            return write_list(column, value, depth);
        }
        if (PyDict_CheckExact(value)) {
            return write_dict(column, value, depth);
        }
    }
    return NOT_OURS;
}

/* The fields of one dict, each to the end of its column. */
static int
write_record(Column *columns, PyObject *record, PyObject *names)
{
    Py_ssize_t count = PyTuple_GET_SIZE(names), position = 0;
    int in_order = 1;
    for (Py_ssize_t place = 0; place < count; place++) {
        PyObject *name = PyTuple_GET_ITEM(names, place), *key, *value = NULL;
        if (in_order) {
            /* Dicts that were made alike have their fields in one order, under the same name objects. */
            in_order = PyDict_Next(record, &position, &key, &value) && key == name;
        }
        if (!in_order) {
            value = PyDict_GetItemWithError(record, name);
            if (value == NULL) {
                return PyErr_Occurred() ? FAILED : NOT_OURS;
            }
        }
        int outcome = write_value(&columns[place], value, 0);
        if (outcome != TAKEN) {
            return outcome;
        }
    }
    return TAKEN;
}

/* Room for values that are about as long as the first: growing a column step by step is what would take time. */
static int
make_room_for_all(Column *columns, Py_ssize_t count, Py_ssize_t rows)
{
    for (Py_ssize_t place = 0; place < count; place++) {
        Py_ssize_t each = columns[place].used - 5;
        if (each < 1024 && make_room(&columns[place], rows * (each + each / 8 + 1)) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
write_records(Column *columns, PyObject *records, PyObject *names, int all_fields)
{
    /* The size is looked at each time: a lookup may compare a name with a key that has code of its own. */
    for (Py_ssize_t row = 0; row < PySequence_Fast_GET_SIZE(records); row++) {
        PyObject *record = PySequence_Fast_GET_ITEM(records, row);
        if (!PyDict_CheckExact(record) || (all_fields && PyDict_GET_SIZE(record) != PyTuple_GET_SIZE(names))) {
            return NOT_OURS;
        }
        Py_INCREF(record);
        int outcome = write_record(columns, record, names);
        Py_DECREF(record);
        if (outcome != TAKEN) {
            return outcome;
        }
        if (row == 0 && make_room_for_all(columns, PyTuple_GET_SIZE(names), PySequence_Fast_GET_SIZE(records)) < 0) {
            return FAILED;
        }
    }
    return TAKEN;
}

static int
begin_columns(Column *columns, Py_ssize_t count, Py_ssize_t rows)
{
    for (Py_ssize_t place = 0; place < count; place++) {
        columns[place].bytes = PyBytes_FromStringAndSize(NULL, 64);
        if (columns[place].bytes == NULL) {
            return -1;
        }
        unsigned char *to = (unsigned char *)PyBytes_AS_STRING(columns[place].bytes);
        to[0] = 0xdd; /* an array, its length in 32 bits */
        write_number(to + 1, (unsigned long long)rows, 4);
        columns[place].used = 5;
    }
    return 0;
}

static PyObject *
finish_columns(Column *columns, Py_ssize_t count)
{
    PyObject *found = PyList_New(count);
    if (found == NULL) {
        return NULL;
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        if (_PyBytes_Resize(&columns[place].bytes, columns[place].used) < 0) {
            Py_DECREF(found);
            return NULL;
        }
        PyList_SET_ITEM(found, place, columns[place].bytes);
        columns[place].bytes = NULL;
    }
    return found;
}

PyDoc_STRVAR(take_doc,
"take(records, names, all_fields, /)\n--\n\n"
"Take fields of dicts as columns.\n\n"
"Args:\n"
"    records: A list or tuple.\n"
"    names: A tuple of the fields' names.\n"
"    all_fields: Whether no record may have other fields.\n\n"
"Returns:\n"
"    For each name the msgpack array of the records' values; None where a record is no dict or has not these fields,\n"
"    a name is no str, or a value is none of str, int of 64 bits, float, bool and None, nor a list, tuple or dict of\n"
"    such, eight deep at most.\n");

static PyObject *
take(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given)
{
    if (given != 3) {
        PyErr_SetString(PyExc_TypeError, "take() takes 3 arguments");
        return NULL;
    }
    PyObject *records = args[0], *names = args[1];
    int all_fields = PyObject_IsTrue(args[2]);
    if (all_fields < 0) {
        return NULL;
    }
    if (!PyTuple_CheckExact(names) || !(PyList_CheckExact(records) || PyTuple_CheckExact(records))) {
        Py_RETURN_NONE;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(names), rows = PySequence_Fast_GET_SIZE(records);
    if (rows > 0x7fffffff) {
        Py_RETURN_NONE;
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(names, place))) {
            Py_RETURN_NONE;
        }
    }
    Column *columns = PyMem_Calloc(count ? (size_t)count : 1, sizeof(Column));
    if (columns == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *found = NULL;
    if (begin_columns(columns, count, rows) == 0) {
        int outcome = write_records(columns, records, names, all_fields);
        if (outcome == TAKEN && PySequence_Fast_GET_SIZE(records) == rows) {
            found = finish_columns(columns, count);
        }
        else if (outcome != FAILED) {
            found = Py_NewRef(Py_None);
        }
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        Py_XDECREF(columns[place].bytes);
    }
    PyMem_Free(columns);
    return found;
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "xray._fields",
    .m_doc = "Fields of dicts as columns of msgpack.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__fields(void)
{
    return PyModuleDef_Init(&definition);
}
