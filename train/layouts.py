"""placeholder"""
def read_covid_qu_ex(root): raise NotImplementedError
def read_lc25000(root): raise NotImplementedError
